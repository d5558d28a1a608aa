"""Schema of a profile file: its fields, their units and ranges, and valid combinations.

Each message is the end of a line that begins with the file and the field.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from orchestrator.errors import short

# Fades have no lower limit, queues do: below this rate one packet would block a link for seconds.
MIN_RATE_BPS = 10e3
# Above this rate a link is not limited: both backends express "not shaped" as 100 Gbit/s.
MAX_RATE_BPS = 99e9
# Share of a link's packets. A higher loss is probably a mistake: 1 is meant as 1 %.
LOSS_MOST = 0.2


def _within(least: float, most: float, unit: str) -> BeforeValidator:
    """Return a validator for numbers from `least` to `most`; its error states both and the unit."""

    def check(value: Any) -> Any:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not least <= value <= most:
            raise ValueError(
                f"is {short(value)}; allowed: a plain number {unit}, from {least:g} to {most:g}"
            )
        return value

    return BeforeValidator(check)


def _file_name(value: Any) -> Any:
    """Check the path of a file: it must be printable."""
    if not isinstance(value, str) or not 1 <= len(value) <= 200 or not value.isprintable():
        raise ValueError(f"is {short(value)}; allowed: a file, in 1 to 200 printable characters")
    return value


Rate = Annotated[float, _within(MIN_RATE_BPS, MAX_RATE_BPS, "in bit/s")]
Delay = Annotated[float, _within(0, 10, "in seconds")]
Probability = Annotated[float, _within(0, 1, "(a probability)")]
Power = Annotated[float, _within(1e-6, 1e3, "in W")]
Size = Annotated[int, _within(1, 1_000_000, "(whole)")]


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _only_known_fields(cls, raw: Any) -> Any:
        allowed = ", ".join(cls.model_fields)
        if not isinstance(raw, dict):
            raise ValueError(f"is {short(raw)}; allowed: fields of {allowed}")
        for name in raw:
            if name not in cls.model_fields:
                raise ValueError(f"has no field {short(name)}; allowed: {allowed}")
        return raw


class Loss(_Strict):
    """Gilbert-Elliott loss: the probabilities of entering and of leaving the lossy state."""

    p: Probability
    r: Annotated[float, _within(0.001, 1, "(a probability)")] = 1.0


class RawLink(_Strict):
    """One direction with explicit settings; without a rate it is not shaped."""

    rate_bps: Rate | None = None
    delay_s: Delay = 0.0
    jitter_s: Delay = 0.0
    loss: Loss | None = None


class Device(_Strict):
    """A device at a distance, or with a recorded trace, or with two raw links.

    Delay, jitter and loss next to a distance or a trace apply to each direction.
    """

    distance_m: Annotated[float, _within(1, 100_000, "in m")] | None = None
    obstruction_db: Annotated[float, _within(0, 100, "in dB")] = 0.0
    trace: Annotated[str, BeforeValidator(_file_name)] | None = None
    extra_delay_s: Delay = 0.0
    jitter_s: Delay = 0.0
    loss: Loss | None = None
    down: RawLink | None = None
    up: RawLink | None = None
    flops: Annotated[float, _within(1e6, 1e18, "in FLOP/s")] | None = None
    reachable: bool = True

    @model_validator(mode="after")
    def _one_kind_of_link(self) -> Device:
        raw = self.down is not None and self.up is not None
        kinds = [raw, self.trace is not None, self.distance_m is not None]
        if kinds.count(True) != 1 or (self.down is None) != (self.up is None):
            raise ValueError("needs either distance_m, or trace, or both down and up")
        radio = self.model_fields_set & {"obstruction_db", "extra_delay_s", "jitter_s", "loss"}
        if raw and radio:
            raise ValueError(f"has raw links, so {min(radio)} belongs into down and up")
        if self.trace is not None and "obstruction_db" in radio:
            raise ValueError("has a trace, which has every loss in it: no obstruction_db")
        return self


class Fading(_Strict):
    """Variation of the gain: drawn once, or every `coherence_s`; a speed correlates the draws.

    `coherence_s` is also the interval at which a trace is sampled.
    """

    kind: Literal["rayleigh", "none"]
    coherence_s: Annotated[float, _within(0.01, 86_400, "in seconds")] | None = None
    speed_m_per_s: Annotated[float, _within(0, 500, "in m/s")] | None = None

    @model_validator(mode="after")
    def _speed_needs_intervals(self) -> Fading:
        varies = self.kind == "rayleigh" and self.coherence_s is not None
        if self.speed_m_per_s is not None and not varies:
            raise ValueError("has speed_m_per_s, so kind must be rayleigh and coherence_s given")
        return self


class EmulateSpec(_Strict):
    """The model whose costs are emulated."""

    hidden_size: Size
    intermediate_size: Size
    bits_per_element: Annotated[int, _within(1, 64, "(whole)")]
    activation_flop: Annotated[float, _within(0, 1000, "of FLOP")] = 4.0


class Spec(_Strict):
    """The fields of a profile file; the radio defaults are the paper's settings."""

    description: Annotated[str, Field(min_length=1, max_length=200)]
    seed: Annotated[int, _within(0, 2**63 - 1, "(whole)")] = 0
    carrier_ghz: Annotated[float, _within(0.1, 100, "in GHz")] = 3.5
    bandwidth_hz: Annotated[float, _within(1e3, 1e11, "in Hz")] = 100e6
    noise_dbm_per_hz: Annotated[float, _within(-200, 0, "in dBm/Hz")] = -174.0
    bs_power_w: Power = 10.0
    device_power_w: Power = 0.2
    shadowing_db: Annotated[float, _within(0, 30, "in dB")] = 0.0
    outage_bps: Rate | None = None
    fading: Fading
    emulate: EmulateSpec | None = None
    devices: Annotated[tuple[Device, ...], Field(strict=False, min_length=1, max_length=1024)]

    @model_validator(mode="after")
    def _devices_fit_the_rest(self) -> Spec:
        for index, device in enumerate(self.devices):
            if self.emulate and device.flops is None:
                raise ValueError(f"has emulate, so devices[{index}].flops must be given")
            if device.trace is not None and self.fading.coherence_s is None:
                raise ValueError(f"has devices[{index}].trace, so fading.coherence_s must be given")
        return self


def explain(error: ValidationError) -> str:
    """Return the first fault: field, value, what is allowed."""
    fault = error.errors()[0]
    field = ""
    for part in fault["loc"]:
        field += f"[{part}]" if isinstance(part, int) else f".{part}" if field else part
    match fault["type"]:
        case "missing":
            message = "is missing"
        case "value_error":  # raised in this file, with a complete message
            message = str(fault["ctx"]["error"])
        case _:
            message = f"is {short(fault['input'])}; {fault['msg'].replace('Input s', 's')}"
    return f"{field or 'the profile'} {message}"
