"""What `wdmoe link verify` found: measured against requested, for each link, direction and size.

    error        = (measured − cost − expected) / expected
    error_as_is  = (measured − expected) / expected

`orchestrator.verify.result` says what `measured`, `expected` and `cost` are.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

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
        """The rate of the measured time, cost included; None for a link without a limit."""
        limited = self.expected_s > self.delay_s < self.measured_s
        return self.wire_bits / (self.measured_s - self.delay_s) if limited else None

    @property
    def error(self) -> float | None:
        """Relative error of the transmission time; None for a link that is not shaped."""
        if self.expected_s == 0:
            return None
        return self.error_s / self.expected_s

    @property
    def error_s(self) -> float:
        """By how much the transmission time is longer than expected [s]."""
        return self.measured_s - self.cost_s - self.expected_s

    @property
    def error_as_is(self) -> float | None:
        """The relative error with the stack's own cost included."""
        return (self.measured_s - self.expected_s) / self.expected_s if self.expected_s else None


class Loss(_Strict):
    """Packets lost on one direction of a link; `asked` is the configured share."""

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
