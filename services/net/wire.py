"""The data plane's messages between base station (ROUTER) and devices (DEALER).

    ┌───────────┬────────────────────────────────────┬─────────────┬─────────────┐
    │ identity  │ msgpack map                        │ buffer 0    │ buffer 1    │
    │ device-3  │ {v, kind, id, layer, x: ext, pad}  │ x's bytes   │ pad's bytes │
    └───────────┴────────────────────────────────────┴─────────────┴─────────────┘
      ROUTER only   always                             each only if ≥ 64 KiB; else inside the map

    device ── Hello ──► bs       who I am, what I hold          (again after Identify)
    device ◄── Welcome | Refused | Identify ── bs
    device ── Beat ───► bs       alive, when there is nothing else to say
    device ◄── Beat ─── bs       to find out whether a device that computes is still connected
    device ── Leave ──► bs       I cannot serve, and why, as long as it lasts; then Hello again
    device ◄── Work ─── bs       one for each (layer, device): n tokens' embeddings, padding
    device ── Done ───► bs       n outputs, padding, four monotonic timestamps
    device ── Failed ─► bs       this piece of work cannot be done, and why
    device ◄── Probe ── bs       padding, to time the link with
    device ── Probed ─► bs       as much padding, two monotonic timestamps

A tensor is ext type 1: msgpack [dtype, [n, m], bytes or number of the buffer]. Nothing is ever
unpickled; every length is checked before anything is allocated for it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Any, TypeAlias, get_args, get_type_hints

import msgpack
import torch

PROTOCOL = 3
OWN_FRAME_BYTES = 64 * 1024
MAX_MESSAGE_BYTES = 1 << 28
MAX_TOKENS = 1 << 17
MAX_HIDDEN = 1 << 16
MAX_TEXT = 512
INT8_BLOCK = 64
# The pause before each probe and each answer to one, in which both ends finish with the message
# before: only then is a message timed alone.
PROBE_PAUSE_S = 5e-3

Buffer: TypeAlias = bytes | memoryview
_TENSOR_EXT = 1
_FLOATS = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
DTYPES = (*_FLOATS, "int8")


class WireError(ValueError):
    """A message that cannot be accepted; `reason` is a short label for the counter."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


@dataclass(frozen=True)
class Payload:
    """An n × m tensor as it is sent. `dtype` is one of DTYPES."""

    dtype: str
    shape: tuple[int, int]
    data: Buffer

    @classmethod
    def of(cls, tensor: torch.Tensor, dtype: str) -> Payload:
        """Pack an n × m tensor (any float dtype, any device)."""
        n, m = tensor.shape
        if dtype == "int8":
            return cls(dtype, (n, m), _quantize(tensor))
        flat = tensor.detach().to(device="cpu", dtype=_FLOATS[dtype]).contiguous()
        return cls(dtype, (n, m), flat.view(torch.uint8).numpy().data.cast("B"))

    def tensor(self) -> torch.Tensor:
        """Return the tensor as fp32 (n × m) on the CPU."""
        raw = torch.frombuffer(bytearray(self.data), dtype=torch.uint8)
        if self.dtype == "int8":
            return _dequantize(raw, *self.shape)
        return raw.view(_FLOATS[self.dtype]).reshape(self.shape).float()


def payload_bytes(dtype: str, n: int, m: int) -> int:
    """Return the bytes that an n × m tensor takes on the wire, without framing."""
    if dtype == "int8":
        return n * (m + 4 * -(-m // INT8_BLOCK))
    return n * m * _FLOATS[dtype].itemsize


def _quantize(tensor: torch.Tensor) -> bytes:
    """Blockwise int8: per row and 64 elements one fp32 scale (absmax / 127), scales first."""
    n, m = tensor.shape
    blocks = torch.nn.functional.pad(tensor.detach().float().cpu(), (0, -m % INT8_BLOCK))
    blocks = blocks.reshape(n, -1, INT8_BLOCK)
    scale = blocks.abs().amax(dim=-1, keepdim=True) / 127
    codes = torch.round(blocks / scale.clamp(min=1e-30)).to(torch.int8).reshape(n, -1)[:, :m]
    return scale.numpy().tobytes() + codes.contiguous().numpy().tobytes()


def _dequantize(raw: torch.Tensor, n: int, m: int) -> torch.Tensor:
    blocks = -(-m // INT8_BLOCK)
    scale = raw[: 4 * n * blocks].view(torch.float32).reshape(n, blocks)
    codes = raw[4 * n * blocks :].view(torch.int8).reshape(n, m).float()
    return codes * scale.repeat_interleave(INT8_BLOCK, dim=1)[:, :m]


@dataclass(frozen=True)
class Hello:
    """A device's introduction; it is admitted only if all of it fits the base station's model.

    `build` is what it runs (`Build.device_line`); a different build is admitted, and shown.
    """

    protocol: int
    device: int
    fingerprint: str
    expert: int
    layers: int
    hidden_size: int
    build: str


@dataclass(frozen=True)
class Welcome:
    """The device is admitted."""


@dataclass(frozen=True)
class Refused:
    """The device is not admitted; it should report the reason and stop."""

    reason: str


@dataclass(frozen=True)
class Identify:
    """The base station does not know the sender (it was restarted, say): send Hello again."""


@dataclass(frozen=True)
class Beat:
    """A sign of life."""


@dataclass(frozen=True)
class Leave:
    """The device does not serve, because its link has a fault: no answer is due any more."""

    reason: str


@dataclass(frozen=True)
class Work:
    """Expert inputs of one layer. The reply carries as much padding as this message."""

    id: int
    layer: int
    x: Payload
    pad: Buffer


@dataclass(frozen=True)
class Done:
    """Expert outputs in the order of the inputs; times are the device's CLOCK_MONOTONIC [s]."""

    id: int
    y: Payload
    pad: Buffer
    received_s: float
    started_s: float
    finished_s: float
    sent_s: float
    overrun: bool


@dataclass(frozen=True)
class Failed:
    """A piece of work that the device could not do."""

    id: int
    reason: str


@dataclass(frozen=True)
class Probe:
    """Padding, to be answered after a pause with as much padding."""

    id: int
    pad: Buffer


@dataclass(frozen=True)
class Probed:
    """The answer to a probe; times are the device's CLOCK_MONOTONIC [s]."""

    id: int
    pad: Buffer
    received_s: float
    sent_s: float


Message: TypeAlias = (
    Hello | Welcome | Refused | Identify | Beat | Leave | Work | Done | Failed | Probe | Probed
)
_KINDS: dict[str, type[Any]] = {kind.__name__.lower(): kind for kind in get_args(Message)}
_HINTS = {kind: get_type_hints(kind) for kind in _KINDS.values()}
_MAX_FRAMES = 3


def padding(payload: int, target: int) -> Buffer:
    """Return zeros that bring a payload of `payload` bytes up to `target` bytes."""
    missing = min(max(0, target - payload), MAX_MESSAGE_BYTES // 2)
    return memoryview(_zeros(1 << max(missing - 1, 0).bit_length()))[:missing]


@lru_cache(maxsize=32)
def _zeros(size: int) -> bytes:
    return bytes(size)


def encode(message: Message) -> list[Buffer]:
    """Return the frames of a message, without the identity."""
    buffers: list[Buffer] = []

    def lay(data: Buffer) -> Buffer | int:
        if len(data) < OWN_FRAME_BYTES:
            return data
        buffers.append(data)
        return len(buffers) - 1

    packed: dict[str, Any] = {"v": PROTOCOL, "kind": type(message).__name__.lower()}
    for field in fields(message):
        value = getattr(message, field.name)
        if isinstance(value, Payload):
            body = msgpack.packb([value.dtype, value.shape, lay(value.data)])
            value = msgpack.ExtType(_TENSOR_EXT, body)
        elif isinstance(value, bytes | memoryview):
            value = lay(value)
        packed[field.name] = value
    return [msgpack.packb(packed), *buffers]


def bytes_on_tcp(frames: Sequence[Buffer], curve: bool) -> int:
    """Return the bytes that ZeroMQ gives to TCP for a message.

    ZMTP 3.1 puts 2 or 9 bytes before each frame, CURVE another 33 (command name, nonce,
    authenticator, flags).
    """
    sealed = [len(frame) + 33 * curve for frame in frames]
    return sum(size + (2 if size <= 255 else 9) for size in sealed)


def decode(frames: Sequence[Buffer]) -> Message:
    """Return the message in `frames`; WireError for anything that is not exactly a message."""
    if not 1 <= len(frames) <= _MAX_FRAMES:
        raise WireError("frames", f"{len(frames)} frames, allowed: 1 to {_MAX_FRAMES}")
    if sum(map(len, frames)) > MAX_MESSAGE_BYTES:
        raise WireError("size", f"message of more than {MAX_MESSAGE_BYTES} bytes")
    raw = _unpack(frames[0])
    if not isinstance(raw, dict):
        raise WireError("malformed", "not a map")
    if raw.get("v") != PROTOCOL:
        raise WireError("version", f"protocol {raw.get('v')!r}, allowed: {PROTOCOL}")
    kind = _KINDS.get(raw["kind"]) if isinstance(raw.get("kind"), str) else None
    if kind is None:
        raise WireError("kind", f"unknown kind {raw.get('kind')!r:.80}")
    hints = _HINTS[kind]
    if raw.keys() - {"v", "kind"} != hints.keys():
        raise WireError("fields", f"{kind.__name__} needs exactly the fields {', '.join(hints)}")
    buffers = list(frames[1:])
    message: Message = kind(
        **{name: _check(name, hint, raw[name], buffers) for name, hint in hints.items()}
    )
    if any(buffer is not None for buffer in buffers):
        raise WireError("frames", "a frame that nothing refers to")
    return message


def _unpack(data: Buffer) -> Any:
    try:
        return msgpack.unpackb(
            data,
            max_str_len=MAX_TEXT,
            max_bin_len=OWN_FRAME_BYTES,
            max_array_len=8,
            max_map_len=16,
            max_ext_len=OWN_FRAME_BYTES + 256,
            ext_hook=msgpack.ExtType,
        )
    except Exception as error:  # msgpack raises several unrelated types on hostile input
        raise WireError("malformed", f"not msgpack: {type(error).__name__}") from None


def _check(name: str, hint: Any, value: Any, buffers: list[Any]) -> Any:
    if hint is Payload:
        return _payload(name, value, buffers)
    if hint == Buffer:
        return _buffer(name, value, buffers)
    if type(value) is not hint:
        raise WireError("fields", f"{name} must be {hint.__name__}")
    if (hint is int and value < 0) or (hint is float and not math.isfinite(value)):
        raise WireError("fields", f"{name} is out of range")
    return value


def _buffer(name: str, value: Any, buffers: list[Any]) -> Buffer:
    """Return a buffer inside the map, or the frame of number `value`, which is used only once."""
    if isinstance(value, bytes):
        return value
    if type(value) is not int or not 0 <= value < len(buffers) or buffers[value] is None:
        raise WireError("fields", f"{name} refers to no frame")
    data: Buffer = buffers[value]
    buffers[value] = None
    return data


def _payload(name: str, value: Any, buffers: list[Any]) -> Payload:
    if not isinstance(value, msgpack.ExtType) or value.code != _TENSOR_EXT:
        raise WireError("tensor", f"{name} is not a tensor")
    body = _unpack(value.data)
    if not isinstance(body, list) or len(body) != 3:
        raise WireError("tensor", f"{name} is not [dtype, shape, data]")
    dtype, shape, data = body
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise WireError("tensor", f"{name} has dtype {dtype!r:.40}, allowed: {', '.join(DTYPES)}")
    if not isinstance(shape, list) or len(shape) != 2 or {type(s) for s in shape} != {int}:
        raise WireError("tensor", f"{name} needs a shape of two integers")
    n, m = shape
    if not (1 <= n <= MAX_TOKENS and 1 <= m <= MAX_HIDDEN):
        raise WireError(
            "tensor", f"{name} has shape {n} × {m}, allowed: up to {MAX_TOKENS} × {MAX_HIDDEN}"
        )
    buffer = _buffer(name, data, buffers)
    if len(buffer) != payload_bytes(dtype, n, m):
        raise WireError("tensor", f"{name}: {len(buffer)} bytes do not fit {n} × {m} {dtype}")
    return Payload(dtype, (n, m), buffer)
