"""Checks of unpacked values; ValueError says what is wrong. For images without pydantic."""

from __future__ import annotations

import math
from typing import Any

import msgpack


def unpack(data: bytes, what: str, *, max_bytes: int, max_array: int, max_map: int) -> Any:
    """Unpack a message of at most `max_bytes`; `what` is what errors call it."""
    if len(data) > max_bytes:
        raise ValueError(f"{what} of {len(data)} bytes, at most {max_bytes}")
    try:
        return msgpack.unpackb(data, max_array_len=max_array, max_map_len=max_map, max_ext_len=0)
    except Exception as error:  # msgpack raises several unrelated types on hostile input
        raise ValueError(f"{what} is not msgpack: {error}") from None


def number(
    value: Any, *, least: float = -math.inf, above: float = -math.inf, most: float = math.inf
) -> float:
    """Return a finite number within bounds, as a float."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{value!r} is not a finite number")
    if value < least or value <= above or value > most:
        raise ValueError(f"{value!r} is out of range")
    return float(value)


def integer(value: Any, *, least: int = 0) -> int:
    """Return a whole number of at least `least`, below 2^53."""
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value < 1 << 53:
        raise ValueError(f"{value!r} is not an integer of at least {least}")
    return value


def boolean(value: Any) -> bool:
    """Return true or false."""
    if not isinstance(value, bool):
        raise ValueError(f"{value!r} is neither true nor false")
    return value


def text(value: Any, *, most: int = 256) -> str:
    """Return a text of at most `most` characters."""
    if not isinstance(value, str) or len(value) > most:
        raise ValueError(f"{value!r} is not a text of at most {most} characters")
    return value
