"""What the orchestrator announces to devices and base station: a channel interval, and the policy.

    orchestrator ──XPUB──► SUB  base station   estimates latency with it
                       └─► SUB  device-q       shapes its radio interface with it

A state is complete in itself, so that a late joiner needs one message and a repeated one does no
harm. All take effect at the same absolute time, `apply_at_s`. Only msgpack, no pydantic: a device
image carries neither pydantic nor PyYAML.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, TypeAlias

import msgpack

from orchestrator.contracts.checks import boolean, integer, number, text, unpack

VERSION = 1
STATE_PORT = 5560
REPORT_PORT = 5561
MAX_STATE_BYTES = 1 << 20
MAX_DEVICES = 1024
MAX_PARAMS = 16

# A parameter of a selection policy.
Param: TypeAlias = float | int | bool | str


@dataclass(frozen=True)
class Direction:
    """One direction of a link. `rate_bps` None: not shaped. Loss is Gilbert-Elliott (p, r)."""

    rate_bps: float | None = None
    delay_s: float = 0.0
    jitter_s: float = 0.0
    loss_p: float = 0.0
    loss_r: float = 1.0

    @property
    def needs_netem(self) -> bool:
        """Whether delay, jitter or loss are set, which a token bucket cannot emulate."""
        return self.delay_s > 0 or self.jitter_s > 0 or self.loss_p > 0


@dataclass(frozen=True)
class DeviceState:
    """One device: both directions of its link, and its speed C_q [FLOP/s] (None: not emulated).

    A device out of reach must not be used, whatever its link could carry.
    """

    down: Direction
    up: Direction
    flops: float | None = None
    reachable: bool = True


@dataclass(frozen=True)
class Emulation:
    """The model whose transmission and compute times are emulated (Eq. 4 and 5)."""

    hidden_size: int
    intermediate_size: int
    bits_per_element: int
    activation_flop: float = 4.0

    @property
    def bits_per_token(self) -> int:
        """L_comm = ε·m, Eq. 5 [bit]."""
        return self.bits_per_element * self.hidden_size

    @property
    def flop_per_token(self) -> float:
        """L_comp = 4·m·m_h + 2·m_h·m + η·m_h + m_h, Eq. 4 [FLOP]."""
        m, m_h = self.hidden_size, self.intermediate_size
        return 4.0 * m * m_h + 2.0 * m_h * m + self.activation_flop * m_h + m_h


@dataclass(frozen=True)
class PolicyState:
    """The selection policy in force, by its registered name, and its parameters.

    All that have a value are given, defaults too: what is in force does not depend on who reads it.
    """

    name: str = "topk"
    params: Mapping[str, Param] = field(default_factory=dict)


@dataclass(frozen=True)
class ChannelState:
    """All links for one interval.

    `epoch` grows whenever profile or policy change, `interval` counts coherence intervals from the
    beginning of the fading; (epoch, interval) orders states. `apply_at_s` is Unix time, the only
    clock that hosts share.
    """

    epoch: int
    interval: int
    apply_at_s: float
    profile: str
    profile_sha256: str
    devices: tuple[DeviceState, ...]
    emulate: Emulation | None = None
    policy: PolicyState = PolicyState()

    @property
    def order(self) -> tuple[int, int]:
        """The key by which a receiver drops what is older than what it has."""
        return (self.epoch, self.interval)


def encode(state: ChannelState) -> bytes:
    """Pack a state for the wire."""
    packed: bytes = msgpack.packb({"v": VERSION, **asdict(state)})
    return packed


def decode(data: bytes) -> ChannelState:
    """Unpack and check a state; ValueError says what is wrong with it."""
    raw = unpack(data, "state", max_bytes=MAX_STATE_BYTES, max_array=MAX_DEVICES, max_map=64)
    if not isinstance(raw, dict) or raw.get("v") != VERSION:
        raise ValueError(f"state is not of version {VERSION}")
    try:
        emulate = raw["emulate"]
        return ChannelState(
            epoch=integer(raw["epoch"]),
            interval=integer(raw["interval"]),
            apply_at_s=number(raw["apply_at_s"]),
            profile=text(raw["profile"]),
            profile_sha256=text(raw["profile_sha256"]),
            devices=tuple(_device(item) for item in raw["devices"]),
            emulate=None if emulate is None else _emulation(emulate),
            policy=checked_policy(raw["policy"]["name"], raw["policy"]["params"]),
        )
    except (KeyError, TypeError, AttributeError, OverflowError) as error:
        raise ValueError(f"state lacks or mistypes a field: {error!r}") from None


def checked_policy(name: Any, params: Any) -> PolicyState:
    """A policy that `decode` takes; ValueError says what is wrong with it."""
    if len(params) > MAX_PARAMS:
        raise ValueError(f"{len(params)} parameters of a policy, at most {MAX_PARAMS}")
    for key, value in params.items():
        text(key, most=64)
        if not _is_param(value):
            raise ValueError(
                f"{key} is {value!r}; allowed: true, false, a finite number (a whole one below "
                "2^53) or a text of at most 64 characters"
            )
    return PolicyState(text(name), dict(params))


def _device(raw: Any) -> DeviceState:
    flops = raw["flops"]
    return DeviceState(
        _direction(raw["down"]),
        _direction(raw["up"]),
        None if flops is None else number(flops, above=0),
        boolean(raw["reachable"]),
    )


def _direction(raw: Any) -> Direction:
    rate = raw["rate_bps"]
    return Direction(
        rate_bps=None if rate is None else number(rate, above=0),
        delay_s=number(raw["delay_s"], least=0),
        jitter_s=number(raw["jitter_s"], least=0),
        loss_p=number(raw["loss_p"], least=0, most=1),
        loss_r=number(raw["loss_r"], least=0, most=1),
    )


def _emulation(raw: Any) -> Emulation:
    return Emulation(
        hidden_size=integer(raw["hidden_size"], least=1),
        intermediate_size=integer(raw["intermediate_size"], least=1),
        bits_per_element=integer(raw["bits_per_element"], least=1),
        activation_flop=number(raw["activation_flop"], least=0),
    )


def _is_param(value: Any) -> bool:
    if isinstance(value, str):
        return len(value) <= 64
    if isinstance(value, int):  # true and false as well
        return abs(value) < 1 << 53
    return isinstance(value, float) and math.isfinite(value)
