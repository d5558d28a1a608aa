"""What devices report of their links: what was applied when, by which backend, and their queues."""

from __future__ import annotations

import threading
import time
from collections import Counter, defaultdict, deque
from functools import partial
from typing import Annotated, Any, Literal, NamedTuple

import msgpack
import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat

from orchestrator.contracts import channel_state

MAX_REPORT_BYTES = 4096
# Of each device as many intervals are remembered: ten minutes of 50 ms.
HISTORY = 12_000

_Count = Annotated[int, Field(ge=0, lt=2**53)]


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")


class QueueReport(_Strict):
    """One direction's queue since its device began; `overflows`: drops while no loss was asked."""

    packets: _Count
    drops: _Count
    overflows: _Count
    backlog_bytes: _Count


class Report(_Strict):
    """What a device says of its own link: after each change, and once a second."""

    v: Literal[2]
    device: Annotated[int, Field(ge=0, lt=channel_state.MAX_DEVICES)]
    backend: Literal["netem", "tbf"]
    epoch: _Count
    interval: _Count
    apply_at_s: FiniteFloat
    applied_at_s: FiniteFloat
    error: Annotated[str, Field(max_length=500)] | None
    down: QueueReport
    up: QueueReport


class AppliedInterval(NamedTuple):
    """One interval on one device: when it was to begin (Unix time), and when it did."""

    device: int
    epoch: int
    interval: int
    apply_at_s: float
    applied_at_s: float


def decode_report(data: bytes) -> Report:
    """Unpack and check a report; ValueError says what is wrong with it."""
    if len(data) > MAX_REPORT_BYTES:
        raise ValueError(f"report of {len(data)} bytes, at most {MAX_REPORT_BYTES}")
    try:
        raw = msgpack.unpackb(data, max_array_len=0, max_map_len=16, max_ext_len=0)
    except Exception as error:  # msgpack raises several unrelated types on hostile input
        raise ValueError(f"report is not msgpack: {error}") from None
    return Report.model_validate(raw)


class _Lateness:
    """How late one device applied the intervals of its newest epoch: the last HISTORY of them [s].

    An array, because all of them are asked for with every `GET /status`, beside a thread that has
    states to announce.
    """

    def __init__(self) -> None:
        self._epoch = -1
        self._count = 0
        self._late_s = np.zeros(HISTORY)

    def append(self, applied: AppliedInterval) -> None:
        """Keep one interval's; a new epoch forgets those of the one before."""
        if applied.epoch != self._epoch:
            self._epoch, self._count = applied.epoch, 0
        self._late_s[self._count % HISTORY] = applied.applied_at_s - applied.apply_at_s
        self._count += 1

    def of(self, epoch: int) -> NDArray[np.float64]:
        """A copy, in no order; empty if the device's newest epoch is another."""
        return self._late_s[: self._count if epoch == self._epoch else 0].copy()


class DeviceReports:
    """The newest report of each device, and when each interval was applied; for any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._newest: dict[int, tuple[Report, float]] = {}  # with the monotonic time of arrival
        self._applied: dict[int, deque[AppliedInterval]] = defaultdict(
            partial(deque, maxlen=HISTORY)
        )
        self._late: dict[int, _Lateness] = defaultdict(_Lateness)
        self._errors: Counter[int] = Counter()

    def take(self, report: Report) -> None:
        """Keep a report."""
        applied = AppliedInterval(
            *(report.device, report.epoch, report.interval),
            *(report.apply_at_s, report.applied_at_s),
        )
        with self._lock:
            self._newest[report.device] = (report, time.monotonic())
            self._errors[report.device] += report.error is not None
            past = self._applied[report.device]
            if report.error is None and (not past or past[-1][:3] != applied[:3]):
                past.append(applied)
                self._late[report.device].append(applied)

    def without_netem(self) -> list[int]:
        """The devices whose kernel shapes rates only."""
        with self._lock:
            return sorted(q for q, (r, _) in self._newest.items() if r.backend == "tbf")

    def intervals(self, since_s: float) -> list[AppliedInterval]:
        """All that were to begin at `since_s` (Unix time) or later, as far as remembered."""
        with self._lock:
            return [one for past in self._applied.values() for one in past if one[3] >= since_s]

    def newest(self, device: int) -> tuple[Report, float] | None:
        """A device's newest report, and the monotonic time at which it arrived; None before it."""
        with self._lock:
            return self._newest.get(device)

    def describe(self, device: int, epoch: int) -> dict[str, Any]:
        """A device's newest report, and how late the intervals of an epoch were applied."""
        with self._lock:
            report, arrived_s = self._newest.get(device, (None, 0.0))
            late_s = self._late[device].of(epoch)
            errors = self._errors[device]
        told = report.model_dump() if report else {}
        return {
            "backend": told.get("backend"),
            "applied_epoch": told.get("epoch"),
            "applied_interval": told.get("interval"),
            "reported_age_s": time.monotonic() - arrived_s if report else None,
            "error": told.get("error"),
            "errors": errors,
            "queues": {name: told[name] for name in ("down", "up")} if report else None,
            "lateness": _summary(late_s),
        }


def _summary(late_s: NDArray[np.float64]) -> dict[str, float | None]:
    if not late_s.size:
        return {"n": 0, "p50_s": None, "p99_s": None, "max_s": None}
    p50_s, p99_s = np.percentile(late_s, [50, 99]).tolist()
    return {
        "n": late_s.size,
        "p50_s": p50_s,
        "p99_s": p99_s if late_s.size >= 100 else None,
        "max_s": float(late_s.max()),
    }
