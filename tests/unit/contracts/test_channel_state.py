"""The codec of channel states: it preserves valid states, and refuses everything else."""

from dataclasses import asdict
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.contracts import channel_state
from orchestrator.contracts.channel_state import (
    ChannelState,
    DeviceState,
    Direction,
    Emulation,
    PolicyState,
)

directions = st.builds(
    Direction,
    rate_bps=st.none() | st.floats(1, 1e12),
    delay_s=st.floats(0, 10),
    jitter_s=st.floats(0, 10),
    loss_p=st.floats(0, 1),
    loss_r=st.floats(0, 1),
)
devices = st.builds(
    DeviceState,
    down=directions,
    up=directions,
    flops=st.none() | st.floats(1, 1e18),
    reachable=st.booleans(),
)
sizes = st.integers(1, 1 << 20)
numbers = st.floats(allow_nan=False, allow_infinity=False)
names = st.text(st.characters(exclude_categories=["Cs"]), max_size=256)
short = st.text(st.characters(exclude_categories=["Cs"]), max_size=64)
params = st.booleans() | st.integers(1 - (1 << 53), (1 << 53) - 1) | numbers | short
states = st.builds(
    ChannelState,
    epoch=st.integers(0, (1 << 53) - 1),
    interval=st.integers(0, (1 << 53) - 1),
    apply_at_s=numbers,
    profile=names,
    profile_sha256=names,
    devices=st.lists(devices, max_size=9).map(tuple),
    emulate=st.none() | st.builds(Emulation, sizes, sizes, st.integers(1, 64), st.floats(0, 100)),
    policy=st.builds(PolicyState, names, st.dictionaries(short, params, max_size=16)),
)

SAMPLE = ChannelState(
    epoch=3,
    interval=4,
    apply_at_s=5.0,
    profile="near-far",
    profile_sha256="00",
    devices=(DeviceState(Direction(1e6), Direction(2e6, 0.01, 0.001, 0.1, 0.5), 1e12, False),),
    emulate=Emulation(4096, 14336, 16),
    policy=PolicyState("wlr", {"theta": 0.2, "strict": False, "latency": "larger"}),
)


@given(states)
def test_a_state_survives_encoding_and_decoding(original: ChannelState) -> None:
    decoded = channel_state.decode(channel_state.encode(original))
    assert decoded == original
    # 1, 1.0 and True are equal but different parameters.
    for key, value in original.policy.params.items():
        assert type(decoded.policy.params[key]) is type(value)


def test_order_is_by_epoch_then_interval() -> None:
    assert SAMPLE.order == (3, 4)


def broken(path: str, value: Any) -> bytes:
    """Return the encoded sample with one field replaced."""
    raw: Any = {"v": 1, **asdict(SAMPLE)}
    node = raw
    *parents, last = [int(key) if key.isdigit() else key for key in path.split(".")]
    for key in parents:
        node = node[key]
    node[last] = value
    packed: bytes = msgpack.packb(raw)
    return packed


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("v", 2),
        ("epoch", -1),
        ("epoch", True),
        ("interval", 1.5),
        ("interval", 1 << 60),
        ("apply_at_s", float("nan")),
        ("apply_at_s", "now"),
        ("profile", b"near-far"),
        ("profile", "x" * 257),
        ("devices", None),
        ("devices", [None]),
        ("devices", [{}] * (channel_state.MAX_DEVICES + 1)),
        ("devices.0.reachable", 1),
        ("devices.0.flops", 0),
        ("devices.0.flops", float("inf")),
        ("devices.0.down", []),
        ("devices.0.down.rate_bps", 0),
        ("devices.0.down.rate_bps", -1e6),
        ("devices.0.up.delay_s", -0.1),
        ("devices.0.up.loss_p", 1.1),
        ("emulate.hidden_size", 0),
        ("emulate", "mixtral"),
        ("policy", 1),
        ("policy.params", ["theta"]),
        ("policy.params.theta", None),
        ("policy.params.theta", float("inf")),
        ("policy.params.theta", [0.2]),
        ("policy.params.max_drops", 1 << 53),
        ("policy.params.latency", "x" * 65),
        ("policy.params", {"x" * 65: 1}),
        ("policy.params", {str(number): 0 for number in range(17)}),
    ],
)
def test_a_field_out_of_its_range_is_refused(path: str, value: Any) -> None:
    with pytest.raises(ValueError, match=r"."):
        channel_state.decode(broken(path, value))


def test_a_missing_field_is_refused_by_name() -> None:
    raw = {"v": 1, **asdict(SAMPLE)}
    del raw["devices"][0]["reachable"]
    with pytest.raises(ValueError, match="reachable"):
        channel_state.decode(msgpack.packb(raw))


def test_an_oversized_message_is_refused_unread() -> None:
    with pytest.raises(ValueError, match="at most"):
        channel_state.decode(b"\xc1" * (channel_state.MAX_STATE_BYTES + 1))


@given(st.binary(max_size=200))
def test_noise_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="state is not"):
        channel_state.decode(data)


@given(st.data())
def test_a_damaged_state_is_refused_or_still_a_state(data: st.DataObject) -> None:
    wire = bytearray(channel_state.encode(SAMPLE))
    for _ in range(data.draw(st.integers(1, 4))):
        wire[data.draw(st.integers(0, len(wire) - 1))] = data.draw(st.integers(0, 255))
    try:
        decoded = channel_state.decode(bytes(wire))
    except ValueError:
        return
    assert channel_state.decode(channel_state.encode(decoded)) == decoded


def test_deep_nesting_is_refused() -> None:
    with pytest.raises(ValueError, match="msgpack"):
        channel_state.decode(b"\x91" * 100_000)
