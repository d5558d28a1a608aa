"""One call of a device's expert: one message of a layer, and its answer."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from services.bs.tracing.spans import RoundTrip
from services.net import wire


@dataclass
class ExpertCall:
    """A call of one device's expert: for which tokens (rows), and in which of their k slots.

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

    def round_trip(self, given_up_s: float) -> RoundTrip:
        """The call in a request's trace; it ends at `given_up_s` where there was no answer."""
        done = self.done
        return RoundTrip(
            device=self.device,
            tokens=len(self.rows),
            sent_bytes=self.sent_bytes,
            answer_bytes=self.answer_bytes,
            overrun=done.overrun if done else False,
            sent_s=self.sent_s,
            ended_s=self.ended_s if done else given_up_s,
            device_s=(done.received_s, done.started_s, done.finished_s, done.sent_s)
            if done
            else None,
        )


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
