"""Profile files: the devices, distances and speeds of a scenario, and the resulting channel.

A `Profile` is the parsed file and a pure function from interval number to channel state:
the orchestrator broadcasts that state, `wdmoe profile show` prints it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from pydantic import ValidationError

from orchestrator.contracts.channel_state import (
    ChannelState,
    DeviceState,
    Direction,
    Emulation,
    PolicyState,
)
from orchestrator.errors import InputError, short
from orchestrator.files import strict_yaml, text_file
from orchestrator.process.environment import setting
from orchestrator.process.root import ROOT
from orchestrator.radio import channel_model, link_trace, profile_schema
from orchestrator.radio.channel_model import CorrelatedFading, DirectionName
from orchestrator.radio.link_trace import Trace
from orchestrator.radio.profile_schema import (
    LOSS_MOST,
    MAX_RATE_BPS,
    MIN_RATE_BPS,
    Device,
    Loss,
    RawLink,
    Spec,
)

# Fading is drawn from as far back as its memory reaches: 0.2 ms per interval of eight devices.
MAX_DRAWN = 10_000

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True)
class Profile:
    """A profile file: its name, its text, the parsed fields, and the traces it refers to."""

    name: str
    text: str
    spec: Spec
    recorded: Mapping[str, Trace] = field(default_factory=dict)

    @property
    def traces(self) -> Mapping[str, str]:
        """Texts of the traces by reference; together with `text` they define the profile."""
        return {reference: trace.text for reference, trace in self.recorded.items()}

    @cached_property
    def sha256(self) -> str:
        """Hash of the text and the traces, recorded in results."""
        digest = hashlib.sha256(self.text.encode())
        for reference, text in sorted(self.traces.items()):
            digest.update(f"\0{reference}\0{text}".encode())
        return digest.hexdigest()

    @property
    def needs_netem(self) -> bool:
        """Whether any link needs more than a rate limit."""
        return any(d.down.needs_netem or d.up.needs_netem for d in self.devices(None))

    @property
    def warnings(self) -> list[str]:
        """One line for each setting that is allowed but probably a mistake."""
        lossy: dict[tuple[float, float], list[str]] = {}
        for index, device in enumerate(self.devices(None)):
            for name, link in (("down", device.down), ("up", device.up)):
                if link.loss_p > LOSS_MOST * (link.loss_p + link.loss_r):
                    lossy.setdefault((link.loss_p, link.loss_r), []).append(f"{name} {index}")
        return [
            f"loss p={p:g} r={r:g} loses {p / (p + r):.0%} of the packets of {', '.join(links)}; "
            "p and r are probabilities, not percentages: 1 % is {p: 0.01}"
            for (p, r), links in lossy.items()
        ]

    @property
    def interval_s(self) -> float | None:
        """Length of an interval; None if there is only one."""
        fading = self.spec.fading
        if fading.speed_m_per_s == 0 and not self.recorded:
            return None  # nothing moves
        return fading.coherence_s if fading.kind == "rayleigh" or self.recorded else None

    @property
    def fades(self) -> bool:
        """Whether links depend on the interval, even if a run has only one."""
        drawn = self.spec.fading.kind == "rayleigh" and any(
            device.distance_m is not None for device in self.spec.devices
        )
        return drawn or self.interval_s is not None

    @cached_property
    def correlation(self) -> float:
        """Correlation ρ of the complex gain from one interval to the next."""
        fading = self.spec.fading
        if fading.speed_m_per_s is None or fading.coherence_s is None:
            return 0.0
        return channel_model.jakes_correlation(
            fading.speed_m_per_s, self.spec.carrier_ghz, fading.coherence_s
        )

    def can_begin_at(self, interval: int) -> bool:
        """Return whether an interval is quick to draw: few earlier intervals affect it."""
        return min(interval, channel_model.memory(self.correlation)) <= MAX_DRAWN

    def devices(self, interval: int | None) -> tuple[DeviceState, ...]:
        """Return all devices in one interval.

        For None, every gain is at its mean, every trace at its average, and no device in outage.
        """
        return tuple(
            self._device(index, device, interval) for index, device in enumerate(self.spec.devices)
        )

    def state(
        self, *, epoch: int, interval: int, apply_at_s: float, policy: PolicyState
    ) -> ChannelState:
        """Return the state that the orchestrator broadcasts for one interval."""
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

    def shadowing_db(self, index: int) -> float:
        """Return the shadowing of a device, added to its path loss for the whole run."""
        spec = self.spec
        return channel_model.shadowing_db(spec.shadowing_db, seed=spec.seed, device=index)

    def _device(self, index: int, device: Device, interval: int | None) -> DeviceState:
        if device.down is not None and device.up is not None:
            down, up = _raw(device.down), _raw(device.up)
            return DeviceState(down, up, device.flops, device.reachable)
        least_bps = self.spec.outage_bps or 0.0
        if device.trace is not None:
            rates = self._recorded_bps(self.recorded[device.trace], interval)
            least_bps = max(least_bps, MIN_RATE_BPS)
        else:
            rates = self.radio_bps(index, device, interval)
        outage = interval is not None and min(rates) < least_bps
        down, up = (
            _direction(
                MIN_RATE_BPS if outage else min(max(rate, MIN_RATE_BPS), MAX_RATE_BPS),
                device.extra_delay_s,
                device.jitter_s,
                device.loss,
            )
            for rate in rates
        )
        return DeviceState(down, up, device.flops, device.reachable and not outage)

    def _recorded_bps(self, trace: Trace, interval: int | None) -> tuple[float, float]:
        """Return the average rates over an interval, which keep the bits of all lines it spans."""
        if interval is None:
            begin_ns, end_ns = 0, trace.length_ns
        else:
            assert self.interval_s is not None  # Spec has checked it
            step_ns = round(self.interval_s * 1e9)
            begin_ns, end_ns = interval * step_ns, (interval + 1) * step_ns
        return trace.down.mean_bps(begin_ns, end_ns), trace.up.mean_bps(begin_ns, end_ns)

    def radio_bps(self, index: int, device: Device, interval: int | None) -> tuple[float, float]:
        """Return the rates of a device at a distance, Eq. 2 and 3, without the limits of a link."""
        spec = self.spec
        assert device.distance_m is not None  # Device has checked it
        mean = channel_model.mean_gain(
            channel_model.path_loss_db(device.distance_m, spec.carrier_ghz)
            + device.obstruction_db
            + self.shadowing_db(index)
        )
        noise = channel_model.noise_w_per_hz(spec.noise_dbm_per_hz)
        share_hz = spec.bandwidth_hz / len(spec.devices)
        down = self._gain(mean, index, "down", interval)
        up = self._gain(mean, index, "up", interval)
        return (
            channel_model.rate_bps(share_hz, spec.bs_power_w, down, noise),
            channel_model.rate_bps(share_hz, spec.device_power_w, up, noise),
        )

    def _gain(
        self, mean: float, index: int, direction: DirectionName, interval: int | None
    ) -> float:
        fading = self.spec.fading
        if fading.kind == "none" or interval is None:
            return mean
        if fading.speed_m_per_s is not None and self.interval_s is not None:
            return self._correlated[index, direction].gain(mean, interval)
        return channel_model.rayleigh_gain(
            mean, seed=self.spec.seed, device=index, direction=direction, interval=interval
        )

    @cached_property
    def _correlated(self) -> Mapping[tuple[int, DirectionName], CorrelatedFading]:
        """The correlated fading of each device and direction."""
        directions: tuple[DirectionName, ...] = ("down", "up")
        return {
            (index, name): CorrelatedFading(
                self.correlation, seed=self.spec.seed, device=index, direction=name
            )
            for index in range(len(self.spec.devices))
            for name in directions
        }


def parse(text: str, name: str, source: str, traces: Mapping[str, str] | None = None) -> Profile:
    """Parse the text of a profile and of the traces that its devices name.

    Raises:
        InputError: the first fault, in one line that begins with `source`.
    """
    return _profile(text, name, source, _spec(text, name, source), traces or {})


def load(path: Path) -> Profile:
    """Read a profile file and its traces; its name is that of the file, without the suffix."""
    source = str(path)
    name = Path(path.name.removesuffix(".gz")).stem
    text = text_file.read(path, strict_yaml.MAX_BYTES)
    spec = _spec(text, name, source)
    texts: dict[str, str] = {}
    for reference in _references(spec):
        file = path.parent / text_file.user_path(reference)
        texts[reference] = text_file.read(file, link_trace.MAX_BYTES)
        _check_size(texts, source)
    return _profile(text, name, source, spec, texts)


def bundled() -> list[Profile]:
    """Return all profiles of the profiles folder, sorted by name."""
    return [load(path) for path in sorted(_folder().glob("*.yaml"))]


def find(reference: str) -> Profile:
    """Return a bundled profile by name, or a file by path (with a folder or a .yaml in it)."""
    if "/" in reference or reference.removesuffix(".gz").endswith((".yaml", ".yml")):
        return load(text_file.user_path(reference))
    path = _folder() / f"{reference}.yaml"
    if not path.is_file():
        names = ", ".join(sorted(p.stem for p in _folder().glob("*.yaml"))) or "none"
        raise InputError(f"no bundled profile {short(reference)}; there are: {names}")
    return load(path)


def _folder() -> Path:
    default = ROOT / "netem_profiles"
    return text_file.user_path(setting("WDMOE_PROFILES_DIR") or default)


def _spec(text: str, name: str, source: str) -> Spec:
    if not _NAME.fullmatch(name):
        raise InputError(
            f"{source}: the profile's name is {short(name)}; allowed: at most 64 letters, digits "
            "and . _ -, the first a letter or digit"
        )
    raw = strict_yaml.load(text, source)
    try:
        return Spec.model_validate(raw)
    except ValidationError as error:
        raise InputError(f"{source}: {profile_schema.explain(error)}") from None


def _references(spec: Spec) -> list[str]:
    """Return the traces that devices name, each once, in the order of the devices."""
    return list(dict.fromkeys(device.trace for device in spec.devices if device.trace is not None))


def _profile(text: str, name: str, source: str, spec: Spec, texts: Mapping[str, str]) -> Profile:
    named = _references(spec)
    missing = [reference for reference in named if reference not in texts]
    if missing:
        raise InputError(f"{source}: trace {short(missing[0])} is missing")
    if len(texts) > len(named):
        unused = min(texts.keys() - set(named))
        raise InputError(f"{source}: trace {short(unused)} is not named by any device")
    _check_size(texts, source)
    recorded = {
        reference: link_trace.parse(texts[reference], f"{source}: trace {reference}")
        for reference in named
    }
    profile = Profile(name, text, spec, recorded)
    _check_rates(profile, source)
    return profile


def _check_rates(profile: Profile, source: str) -> None:
    """Raise InputError if the rate of a device without fading exceeds the maximum of a link."""
    for index, device in enumerate(profile.spec.devices):
        if device.distance_m is not None:
            fastest = max(profile.radio_bps(index, device, None))
            if fastest > MAX_RATE_BPS:
                raise InputError(
                    f"{source}: devices[{index}] has {fastest:.3g} bit/s without fading; allowed: "
                    f"at most {MAX_RATE_BPS:g}, with less bandwidth_hz or power"
                )


def _check_size(texts: Mapping[str, str], source: str) -> None:
    # A trace is ASCII, so its characters are its bytes; other text is refused later.
    if sum(map(len, texts.values())) > link_trace.MAX_BYTES:
        raise InputError(
            f"{source}: its traces together are larger than the {link_trace.MAX_BYTES} bytes "
            "allowed"
        )


def _raw(link: RawLink) -> Direction:
    return _direction(link.rate_bps, link.delay_s, link.jitter_s, link.loss)


def _direction(
    rate_bps: float | None, delay_s: float, jitter_s: float, loss: Loss | None
) -> Direction:
    if loss is None:
        return Direction(rate_bps, delay_s, jitter_s)
    return Direction(rate_bps, delay_s, jitter_s, loss.p, loss.r)
