"""The data plane's codec: it preserves valid messages, and refuses everything else."""

import contextlib

import msgpack
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from services.net import wire

TOLERANCE = {"fp32": 0.0, "fp16": 1e-3, "bf16": 8e-3, "int8": 1 / 127}


def through(message: wire.Message) -> wire.Message:
    """Encode a message, copy its frames as a network would, and decode it."""
    return wire.decode([bytes(frame) for frame in wire.encode(message)])


def work(x: torch.Tensor, dtype: str = "fp32", pad: int = 0) -> wire.Work:
    return wire.Work(7, 3, wire.Payload.of(x, dtype), wire.padding(0, pad))


@given(
    n=st.integers(1, 40),
    m=st.integers(1, 200),
    dtype=st.sampled_from(wire.DTYPES),
    pad=st.integers(0, 200_000),
    seed=st.integers(0, 1000),
)
@settings(max_examples=60)
def test_a_tensor_is_preserved_within_its_precision(
    n: int, m: int, dtype: str, pad: int, seed: int
) -> None:
    x = torch.rand(n, m, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    received = through(work(x, dtype, pad))
    assert isinstance(received, wire.Work)
    assert (received.id, received.layer, len(received.pad)) == (7, 3, pad)
    assert received.x.shape == (n, m)
    assert len(received.x.data) == wire.payload_bytes(dtype, n, m)
    assert (received.x.tensor() - x).abs().max() <= TOLERANCE[dtype]


@pytest.mark.parametrize(
    "message",
    [
        wire.Hello(1, 3, "f" * 64, 3, 4, 160, "source ab12"),
        wire.Welcome(),
        wire.Refused("its expert is 4"),
        wire.Identify(),
        wire.Beat(),
        wire.Failed(9, "no layer 12"),
        wire.Probe(4, bytes(100)),
        wire.Probed(4, bytes(100), 1.5, 2.5),
    ],
)
def test_messages_without_tensors_are_preserved(message: wire.Message) -> None:
    assert through(message) == message


def test_an_answer_is_preserved_with_its_times() -> None:
    y = wire.Payload.of(torch.ones(2, 3), "fp32")
    done = wire.Done(1, y, b"\0" * 5, 1.0, 2.0, 3.0, 4.0, overrun=True)
    received = through(done)
    assert isinstance(received, wire.Done)
    assert (received.received_s, received.sent_s, received.overrun) == (1.0, 4.0, True)
    assert torch.equal(received.y.tensor(), torch.ones(2, 3))


def test_only_buffers_from_64_kib_on_travel_as_frames_of_their_own() -> None:
    assert len(wire.encode(work(torch.zeros(1, 8), pad=wire.OWN_FRAME_BYTES - 1))) == 1
    assert len(wire.encode(work(torch.zeros(1, 8), pad=wire.OWN_FRAME_BYTES))) == 2
    assert len(wire.encode(work(torch.zeros(200, 160), pad=wire.OWN_FRAME_BYTES))) == 3


def packed(**changes: object) -> list[bytes]:
    """Return a valid Work message with some fields changed (None: omitted)."""
    fields: dict[str, object] = {
        "v": wire.PROTOCOL,
        "kind": "work",
        "id": 1,
        "layer": 0,
        "x": tensor(),
        "pad": b"",
        **changes,
    }
    return [msgpack.packb({key: value for key, value in fields.items() if value is not None})]


def tensor(dtype: object = "fp32", shape: object = (1, 2), data: object = b"\0" * 8) -> object:
    return msgpack.ExtType(1, msgpack.packb([dtype, shape, data]))


@pytest.mark.parametrize(
    ("frames", "reason"),
    [
        ([], "frames"),
        ([b""] * 4, "frames"),
        ([b""], "malformed"),
        ([b"\xc1"], "malformed"),
        ([msgpack.packb([1, 2])], "malformed"),
        ([msgpack.packb({"v": wire.PROTOCOL, "kind": "beat"}) + b"\0"], "malformed"),
        (packed(v=wire.PROTOCOL + 1), "version"),
        (packed(v=None), "version"),
        (packed(kind="eval"), "kind"),
        (packed(kind=["beat"]), "kind"),
        (packed(id=None), "fields"),
        (packed(more=1), "fields"),
        (packed(id="1"), "fields"),
        (packed(id=True), "fields"),
        (packed(id=-1), "fields"),
        (packed(layer=1.0), "fields"),
        (packed(pad=0), "fields"),
        (packed(pad="text"), "fields"),
        (packed(x=b"\0" * 8), "tensor"),
        (packed(x=msgpack.ExtType(9, b"")), "tensor"),
        (packed(x=tensor(dtype="object")), "tensor"),
        (packed(x=tensor(dtype=["fp32"])), "tensor"),
        (packed(x=tensor(shape=[2])), "tensor"),
        (packed(x=tensor(shape=[-1, -2])), "tensor"),
        (packed(x=tensor(shape=[1, 3])), "tensor"),
        (packed(x=tensor(shape=[1 << 40, 1 << 40])), "tensor"),
        (packed(x=tensor(shape=[True, 2])), "tensor"),
        (packed(x=tensor(data=0)), "fields"),
        (packed(x=msgpack.ExtType(1, b"\xc1")), "malformed"),
        ([*packed(), b"a frame that nothing refers to"], "frames"),
        ([*packed(x=tensor(data=0), pad=0), b"\0" * 8], "fields"),
    ],
)
def test_an_invalid_message_is_refused_with_its_reason(frames: list[bytes], reason: str) -> None:
    with pytest.raises(wire.WireError) as caught:
        wire.decode(frames)
    assert caught.value.reason == reason


def test_times_that_are_not_numbers_are_refused() -> None:
    y = wire.Payload.of(torch.ones(1, 1), "fp32")
    done = wire.Done(1, y, b"", float("nan"), 2.0, 3.0, 4.0, overrun=False)
    with pytest.raises(wire.WireError, match="received_s"):
        through(done)


@given(st.lists(st.binary(max_size=300), min_size=1, max_size=4))
def test_noise_never_raises_anything_but_a_wire_error(frames: list[bytes]) -> None:
    with pytest.raises(wire.WireError):
        wire.decode(frames)


@given(st.data())
@settings(max_examples=200)
def test_a_damaged_message_is_refused_or_still_a_message(data: st.DataObject) -> None:
    frame = bytearray(wire.encode(work(torch.ones(2, 4), pad=9))[0])
    frame[data.draw(st.integers(0, len(frame) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(wire.WireError):
        wire.decode([bytes(frame)])
