"""What `wdmoe link verify` found: measured against asked, for each link, direction and size.

    error        = (measured − cost − expected) / expected
    error_as_is  = (measured − expected) / expected

`measured` is the median over n messages, `expected` the time on the air and the delay that were
asked for. `cost` is the stack's own work that no air hides, in medians, without shaping:

    cost         = one packet over the link + (this message − one packet) on loopback

One packet is the smallest message. A larger one's other packets are worked on while some of them
are on the air; but ZeroMQ encrypts all of it before the first packet leaves, and decrypts it after
the last has come: as on loopback, where there are no packets.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from orchestrator.metrics import OrchestratorMetrics

_Device = Annotated[int, Field(ge=0, lt=1024)]
_Seconds = Annotated[float, Field(allow_inf_nan=False)]


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")


class Series(_Strict):
    """Times of one size over one direction of a link [s]; expected None: the link has no rate."""

    device: _Device
    direction: Literal["down", "up"]
    size_bytes: Annotated[int, Field(ge=1)]
    wire_bits: Annotated[int, Field(ge=1)]
    delay_s: _Seconds
    n: Annotated[int, Field(ge=1)]
    expected_s: _Seconds
    measured_s: _Seconds
    p10_s: _Seconds
    p90_s: _Seconds
    cost_s: _Seconds
    unshaped_s: _Seconds
    """The median of the same message over a link that is not shaped."""

    @property
    def rate_bps(self) -> float | None:
        """What the measured time amounts to, cost and all; None for a link that is not limited."""
        limited = self.expected_s > self.delay_s < self.measured_s
        return self.wire_bits / (self.measured_s - self.delay_s) if limited else None

    @property
    def error(self) -> float | None:
        """Relative error of the transmission time; None where none is asked for."""
        if self.expected_s == 0:
            return None
        return self.error_s / self.expected_s

    @property
    def error_s(self) -> float:
        """By how much the transmission time is longer than asked [s]."""
        return self.measured_s - self.cost_s - self.expected_s

    @property
    def error_as_is(self) -> float | None:
        """The same with the stack's own cost in it."""
        return (self.measured_s - self.expected_s) / self.expected_s if self.expected_s else None


class Loss(_Strict):
    """Packets lost on one direction of a link, asked and counted."""

    device: _Device
    direction: Literal["down", "up"]
    asked: Annotated[float, Field(ge=0, le=1)]
    packets: Annotated[int, Field(ge=0)]
    lost: Annotated[int, Field(ge=0)]


class Verification(_Strict):
    """One run of `wdmoe link verify`, with what was in force."""

    verified_at: Annotated[str, Field(max_length=64)]
    profile: Annotated[str, Field(max_length=256)]
    profile_sha256: Annotated[str, Field(max_length=64)]
    backends: Annotated[list[str], Field(max_length=2)]
    series: Annotated[list[Series], Field(max_length=1 << 14)]
    losses: Annotated[list[Loss], Field(max_length=1 << 11)]


@dataclass(frozen=True)
class Unshaped:
    """A message's times without shaping [s], over the link and on loopback."""

    link: Sequence[float]
    loopback: Sequence[float]

    @property
    def link_s(self) -> float:
        """The median over the link."""
        return float(np.median(self.link))

    @property
    def loopback_s(self) -> float:
        """The median on loopback."""
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
    """The series of `shaped` (measured, expected) pairs, next to times without shaping [s].

    `unshaped` are those of the same message, `smallest` those of one packet.

    Under a channel that changes, expectations differ from message to message: each time is
    compared with its own, `measured` is the median of the differences on top of the median
    expectation.
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


def export(verification: Verification, metrics: OrchestratorMetrics) -> None:
    """Show the newest verification to Prometheus, and nothing of the one before."""
    withdraw(metrics)
    largest = max((item.size_bytes for item in verification.series), default=0)
    for item in verification.series:
        if item.error is None:
            continue
        where = (str(item.device), item.direction)
        metrics.link_error_ratio.labels(*where, str(item.size_bytes)).set(item.error)
        metrics.link_error_seconds.labels(*where, str(item.size_bytes)).set(item.error_s)
        if item.size_bytes == largest and item.rate_bps is not None:
            metrics.link_measured_rate_bps.labels(*where).set(item.rate_bps)


def withdraw(metrics: OrchestratorMetrics) -> None:
    """Show Prometheus no verification: the links are not those that were verified."""
    for gauge in (
        metrics.link_error_ratio,
        metrics.link_error_seconds,
        metrics.link_measured_rate_bps,
    ):
        gauge.clear()
