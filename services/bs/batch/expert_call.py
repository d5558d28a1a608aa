"""A piece of work that one device was given."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from services.net import wire


@dataclass
class Job:
    """Work that is with a device: which tokens (rows) and which of their k slots.

    `ended_s` is when its answer arrived, or the device was given up.
    """

    device: int
    rows: torch.Tensor
    slots: torch.Tensor
    sent_s: float
    deadline_s: float
    sent_bytes: int
    answer_bytes: int = 0
    done: wire.Done | None = None
    ended_s: float = 0.0
    output: torch.Tensor | None = None


def between(done: wire.Done, sent_s: float, arrived_s: float) -> wire.Done:
    """An answer with times that lie between its question and its arrival, if they can.

    On one host they do. Where they do not, the device's clock is another one, and its times go to
    the middle: the sum of downlink and uplink stays right, and each is taken to be half of it.
    """
    if sent_s <= done.received_s and done.sent_s <= arrived_s:
        return done
    off_s = (sent_s + arrived_s - done.received_s - done.sent_s) / 2
    return replace(
        done,
        received_s=done.received_s + off_s,
        started_s=done.started_s + off_s,
        finished_s=done.finished_s + off_s,
        sent_s=done.sent_s + off_s,
    )
