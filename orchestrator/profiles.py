"""Profile files: what a scenario's devices, distances and speeds are, and the channel they give.

A `Profile` is the parsed file and a pure function from an interval's number to a channel state:
the orchestrator broadcasts what it returns, `wdmoe profile show` prints the same.
"""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from orchestrator import channel, strict_yaml
from orchestrator.errors import InputError
from orchestrator.state import ChannelState, DeviceState, Direction, Emulation, PolicyState

# A fade has no lower limit, a queue has: below this rate one packet would block a link for seconds.
MIN_RATE_BPS = 10e3

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def _within(least: float, most: float, unit: str) -> BeforeValidator:
    """A number from `least` to `most`; the error tells both, and the unit."""

    def check(value: Any) -> Any:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not least <= value <= most:
            raise ValueError(
                f"is {_short(value)}; allowed: a plain number {unit}, from {least:g} to {most:g}"
            )
        return value

    return BeforeValidator(check)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:60] + "…"


Rate = Annotated[float, _within(MIN_RATE_BPS, 1e12, "in bit/s")]
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
            raise ValueError(f"is {_short(raw)}; allowed: fields of {allowed}")
        for name in raw:
            if name not in cls.model_fields:
                raise ValueError(f"has no field {_short(name)}; allowed: {allowed}")
        return raw


class Loss(_Strict):
    """Gilbert-Elliott: probability of falling into the losing state, and of leaving it."""

    p: Probability
    r: Annotated[float, _within(0.001, 1, "(a probability)")] = 1.0


class RawLink(_Strict):
    """One direction given outright; without a rate it is not shaped."""

    rate_bps: Rate | None = None
    delay_s: Delay = 0.0
    jitter_s: Delay = 0.0
    loss: Loss | None = None


class Device(_Strict):
    """A device at a distance (delay, jitter and loss hold in each direction), or two raw links."""

    distance_m: Annotated[float, _within(1, 100_000, "in m")] | None = None
    obstruction_db: Annotated[float, _within(0, 100, "in dB")] = 0.0
    extra_delay_s: Delay = 0.0
    jitter_s: Delay = 0.0
    loss: Loss | None = None
    down: RawLink | None = None
    up: RawLink | None = None
    flops: Annotated[float, _within(1e6, 1e18, "in FLOP/s")] | None = None
    reachable: bool = True

    @model_validator(mode="after")
    def _distance_or_raw(self) -> Device:
        raw = self.down is not None and self.up is not None
        if raw == (self.distance_m is not None) or (self.down is None) != (self.up is None):
            raise ValueError("needs either distance_m, or both down and up")
        radio = self.model_fields_set & {"obstruction_db", "extra_delay_s", "jitter_s", "loss"}
        if raw and radio:
            raise ValueError(f"has raw links, so {min(radio)} belongs into down and up")
        return self


class Fading(_Strict):
    """How the gain varies; without `coherence_s` it is drawn once."""

    kind: Literal["rayleigh", "none"]
    coherence_s: Annotated[float, _within(0.01, 86_400, "in seconds")] | None = None


class EmulateSpec(_Strict):
    """The model whose costs are emulated."""

    hidden_size: Size
    intermediate_size: Size
    bits_per_element: Annotated[int, _within(1, 64, "(whole)")]
    activation_flop: Annotated[float, _within(0, 1000, "of FLOP")] = 4.0


class Spec(_Strict):
    """The fields of a profile file; the radio's default to the paper's settings."""

    description: Annotated[str, Field(min_length=1, max_length=200)]
    seed: Annotated[int, _within(0, 2**63 - 1, "(whole)")] = 0
    carrier_ghz: Annotated[float, _within(0.1, 100, "in GHz")] = 3.5
    bandwidth_hz: Annotated[float, _within(1e3, 1e11, "in Hz")] = 100e6
    noise_dbm_per_hz: Annotated[float, _within(-200, 0, "in dBm/Hz")] = -174.0
    bs_power_w: Power = 10.0
    device_power_w: Power = 0.2
    fading: Fading
    emulate: EmulateSpec | None = None
    devices: Annotated[tuple[Device, ...], Field(strict=False, min_length=1, max_length=1024)]

    @model_validator(mode="after")
    def _emulation_needs_speeds(self) -> Spec:
        for index, device in enumerate(self.devices):
            if self.emulate and device.flops is None:
                raise ValueError(f"has emulate, so devices[{index}].flops must be given")
        return self


@dataclass(frozen=True)
class Profile:
    """A profile file: its name, its text as given, and what it says."""

    name: str
    text: str
    spec: Spec

    @property
    def sha256(self) -> str:
        """Hash of the text, which a result records."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    @property
    def needs_netem(self) -> bool:
        """Whether any link asks for more than a rate."""
        return any(d.down.needs_netem or d.up.needs_netem for d in self.devices(None))

    def devices(self, interval: int | None) -> tuple[DeviceState, ...]:
        """All devices in one interval; None: with every gain at its mean."""
        return tuple(
            DeviceState(
                down=self._direction(index, device, "down", interval),
                up=self._direction(index, device, "up", interval),
                flops=device.flops,
                reachable=device.reachable,
            )
            for index, device in enumerate(self.spec.devices)
        )

    def state(
        self, *, epoch: int, interval: int, apply_at_s: float, policy: PolicyState
    ) -> ChannelState:
        """What the orchestrator broadcasts for one interval."""
        emulate = self.spec.emulate
        return ChannelState(
            epoch=epoch,
            interval=interval,
            apply_at_s=apply_at_s,
            profile=self.name,
            profile_sha256=self.sha256,
            devices=self.devices(interval),
            emulate=Emulation(**emulate.model_dump()) if emulate else None,
            policy=policy,
        )

    def _direction(
        self, index: int, device: Device, name: channel.DirectionName, interval: int | None
    ) -> Direction:
        if device.distance_m is None:
            raw = device.down if name == "down" else device.up
            assert raw is not None  # Device has checked it
            return _direction(raw.rate_bps, raw.delay_s, raw.jitter_s, raw.loss)
        spec = self.spec
        loss_db = channel.path_loss_db(device.distance_m, spec.carrier_ghz) + device.obstruction_db
        gain = channel.mean_gain(loss_db)
        if spec.fading.kind == "rayleigh" and interval is not None:
            gain = channel.rayleigh_gain(
                gain, seed=spec.seed, device=index, direction=name, interval=interval
            )
        rate = channel.rate_bps(
            spec.bandwidth_hz / len(spec.devices),
            spec.bs_power_w if name == "down" else spec.device_power_w,
            gain,
            channel.noise_w_per_hz(spec.noise_dbm_per_hz),
        )
        return _direction(
            max(rate, MIN_RATE_BPS), device.extra_delay_s, device.jitter_s, device.loss
        )


def parse(text: str, name: str, source: str) -> Profile:
    """Check a profile's text; InputError tells its first fault in one line that names `source`."""
    if not _NAME.fullmatch(name):
        raise InputError(
            f"{source}: the profile's name is {_short(name)}; allowed: at most 64 letters, digits "
            "and . _ -, the first a letter or digit"
        )
    raw = strict_yaml.load(text, source)
    try:
        return Profile(name, text, Spec.model_validate(raw))
    except ValidationError as error:
        raise InputError(f"{source}: {_first_fault(error)}") from None


def load(path: Path) -> Profile:
    """Read a profile file; its name is the file's, without the suffix."""
    try:
        with path.open("rb") as file:
            text = file.read(strict_yaml.MAX_BYTES + 1).decode()
    except UnicodeDecodeError:
        raise InputError(f"{path}: not a text in UTF-8") from None
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None
    return parse(text, path.stem, str(path))


def bundled() -> list[Profile]:
    """All profiles of the profiles folder, by name."""
    return [load(path) for path in sorted(_folder().glob("*.yaml"))]


def find(reference: str) -> Profile:
    """A bundled profile by name, or a file by path (with a folder or a .yaml in it)."""
    if "/" in reference or reference.endswith((".yaml", ".yml")):
        return load(Path(reference))
    path = _folder() / f"{reference}.yaml"
    if not path.is_file():
        names = ", ".join(sorted(p.stem for p in _folder().glob("*.yaml"))) or "none"
        raise InputError(f"no bundled profile {_short(reference)}; there are: {names}")
    return load(path)


def _folder() -> Path:
    beside = Path(__file__).resolve().parent.parent / "netem_profiles"
    return Path(os.environ.get("WDMOE_PROFILES_DIR") or beside)


def _first_fault(error: ValidationError) -> str:
    fault = error.errors()[0]
    field = ""
    for part in fault["loc"]:
        field += f"[{part}]" if isinstance(part, int) else f".{part}" if field else part
    match fault["type"]:
        case "missing":
            message = "is missing"
        case "value_error":  # raised here, with a message that is whole
            message = str(fault["ctx"]["error"])
        case _:
            message = f"is {_short(fault['input'])}; {fault['msg'].replace('Input s', 's')}"
    return f"{field or 'the profile'} {message}"


def _direction(
    rate_bps: float | None, delay_s: float, jitter_s: float, loss: Loss | None
) -> Direction:
    if loss is None:
        return Direction(rate_bps, delay_s, jitter_s)
    return Direction(rate_bps, delay_s, jitter_s, loss.p, loss.r)
