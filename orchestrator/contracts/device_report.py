"""What a device reports of its own link: after each change, and once a second.

    device-q ──PUSH──► PULL  orchestrator

Only msgpack, no pydantic: a device image carries no pydantic.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import msgpack

from orchestrator.contracts.channel_state import MAX_DEVICES
from orchestrator.contracts.checks import integer, number, text, unpack

VERSION = 2
MAX_BYTES = 4096
MAX_ERROR = 500
BACKENDS = ("netem", "tbf")


@dataclass(frozen=True)
class QueueReport:
    """One direction's queue since its device began; `overflows`: drops while no loss was set."""

    packets: int = 0
    drops: int = 0
    overflows: int = 0
    backlog_bytes: int = 0


@dataclass(frozen=True)
class DeviceReport:
    """A link as its device applied it.

    `apply_at_s` and `applied_at_s` are Unix times. `error`: why the link may not be as requested.
    """

    device: int
    backend: str
    epoch: int
    interval: int
    apply_at_s: float
    applied_at_s: float
    error: str | None
    down: QueueReport
    up: QueueReport


def encode(report: DeviceReport) -> bytes:
    """Pack a report for the wire."""
    packed: bytes = msgpack.packb({"v": VERSION, **asdict(report)})
    return packed


def decode(data: bytes) -> DeviceReport:
    """Unpack and check a report; ValueError says what is wrong with it."""
    raw = unpack(data, "report", max_bytes=MAX_BYTES, max_array=0, max_map=16)
    known = {"v", *(field.name for field in fields(DeviceReport))}
    if not isinstance(raw, dict) or raw.get("v") != VERSION or raw.keys() != known:
        raise ValueError(f"report is not of version {VERSION}")
    device, backend, fault = integer(raw["device"]), raw["backend"], raw["error"]
    if device >= MAX_DEVICES:
        raise ValueError(f"device {device} of a report, at most {MAX_DEVICES - 1}")
    if backend not in BACKENDS:
        raise ValueError(f"{backend!r} is no backend; allowed: {', '.join(BACKENDS)}")
    return DeviceReport(
        device=device,
        backend=backend,
        epoch=integer(raw["epoch"]),
        interval=integer(raw["interval"]),
        apply_at_s=number(raw["apply_at_s"]),
        applied_at_s=number(raw["applied_at_s"]),
        error=None if fault is None else text(fault, most=MAX_ERROR),
        down=_queue(raw["down"]),
        up=_queue(raw["up"]),
    )


def _queue(raw: Any) -> QueueReport:
    names = [field.name for field in fields(QueueReport)]
    if not isinstance(raw, Mapping) or raw.keys() != set(names):
        raise ValueError(f"queue needs exactly the fields {', '.join(names)}")
    return QueueReport(**{name: integer(raw[name]) for name in names})
