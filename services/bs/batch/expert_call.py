"""A call of a device's expert: one message of a layer, and its answer."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from orchestrator.contracts.clock_offset import shift_into
from services.bs.tracing.spans import RoundTrip
from services.net import wire


@dataclass
class ExpertCall:
    """A call of one device's expert for tokens (`rows`), each in one of its k slots (`slots`).

    `ended_s` is when the answer arrived, or the device was given up.
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
        """Return the call for a trace; without an answer, it ends at `given_up_s`."""
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


def align_clock(done: wire.Done, sent_s: float, arrived_s: float) -> wire.Done:
    """Return an answer with times between its question and its arrival, as they are on one host.

    With another clock on the device, the sum of downlink and uplink stays right, and each is
    assumed to be half of it.
    """
    shift_s = shift_into((sent_s, arrived_s), (done.received_s, done.sent_s))
    if shift_s == 0:
        return done
    return replace(
        done,
        received_s=done.received_s + shift_s,
        started_s=done.started_s + shift_s,
        finished_s=done.finished_s + shift_s,
        sent_s=done.sent_s + shift_s,
    )
