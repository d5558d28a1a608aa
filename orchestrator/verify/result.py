"""Summarise a series of probes as a `Series` of a verification.

`measured` is the median over n messages, `expected` the requested time on the air and delay. `cost`
is the stack's own work that does not overlap with time on the air, from unshaped medians:

    cost = one packet over the link + (this message − one packet) on loopback

One packet is the smallest message. The other packets of a larger message are processed while some
of them are on the air; but ZeroMQ encrypts the whole message before its first packet leaves, and
decrypts it after the last has arrived: as on loopback, where there are no packets.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from orchestrator.contracts.verification import Series


@dataclass(frozen=True)
class Unshaped:
    """A message's times without shaping [s], over the link and on loopback."""

    link: Sequence[float]
    loopback: Sequence[float]

    @property
    def link_s(self) -> float:
        """Median over the link."""
        return float(np.median(self.link))

    @property
    def loopback_s(self) -> float:
        """Median on loopback."""
        return float(np.median(self.loopback))


def summarise(
    device: int,
    direction: Literal["down", "up"],
    size_bytes: int,
    wire_bits: int,
    delay_s: float,
    shaped: Sequence[tuple[float, float | None]],
    unshaped: Unshaped,
    smallest: Unshaped,
) -> Series:
    """Return the series of `shaped` (measured, expected) pairs, with times without shaping [s].

    `unshaped` are those of the same message, `smallest` those of one packet.

    Where the channel changes, expectations differ from message to message: each time is compared
    with its own, and `measured` is the median difference added to the median expectation.
    """
    known = [(measured, expected) for measured, expected in shaped if expected is not None]
    expected_s = float(np.median([expected for _, expected in known]))
    times = [measured - expected + expected_s for measured, expected in known]
    p10, p50, p90 = np.percentile(times, [10, 50, 90])
    return Series(
        device=device,
        direction=direction,
        size_bytes=size_bytes,
        wire_bits=wire_bits,
        delay_s=delay_s,
        n=len(times),
        expected_s=expected_s,
        measured_s=float(p50),
        p10_s=float(p10),
        p90_s=float(p90),
        cost_s=smallest.link_s + max(0.0, unshaped.loopback_s - smallest.loopback_s),
        unshaped_s=unshaped.link_s,
    )
