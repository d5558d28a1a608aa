"""What devices report of their links: what was applied when, by which backend, and their queues."""

from __future__ import annotations

import threading
import time
from collections import Counter, defaultdict, deque
from dataclasses import asdict
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from orchestrator.contracts.channel_state import DeviceState
from orchestrator.contracts.device_report import DeviceReport
from orchestrator.contracts.http import Lateness, Link, Queue, Queues

# Of each device as many intervals are remembered: ten minutes of 50 ms.
HISTORY = 12_000


class AppliedInterval(NamedTuple):
    """One interval on one device: when it was to begin (Unix time), and when it did."""

    device: int
    epoch: int
    interval: int
    apply_at_s: float
    applied_at_s: float


class _Lateness:
    """How late one device applied the intervals of its newest epoch: the last HISTORY of them [s].

    An array, because every `GET /status` needs all of them, beside a thread that has
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
        self._newest: dict[
            int, tuple[DeviceReport, float]
        ] = {}  # with the monotonic time of arrival
        self._applied: dict[int, deque[AppliedInterval]] = defaultdict(
            partial(deque, maxlen=HISTORY)
        )
        self._late: dict[int, _Lateness] = defaultdict(_Lateness)
        self._errors: Counter[int] = Counter()

    def take(self, report: DeviceReport) -> None:
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

    def newest(self, device: int) -> tuple[DeviceReport, float] | None:
        """A device's newest report, and the monotonic time at which it arrived; None before it."""
        with self._lock:
            return self._newest.get(device)

    def link(self, device: int, requested: DeviceState, epoch: int, fault: str | None) -> Link:
        """A link as requested, and as its device last reported it; lateness is of an epoch."""
        with self._lock:
            report, arrived_s = self._newest.get(device, (None, 0.0))
            late_s = self._late[device].of(epoch)
            errors = self._errors[device]
        return Link(
            device=device,
            **asdict(requested),
            fault=fault,
            backend=report.backend if report else None,
            applied_epoch=report.epoch if report else None,
            applied_interval=report.interval if report else None,
            reported_age_s=time.monotonic() - arrived_s if report else None,
            error=report.error if report else None,
            errors=errors,
            queues=_queues(report) if report else None,
            lateness=_lateness(late_s),
        )


def _queues(report: DeviceReport) -> Queues:
    return Queues(down=Queue(**asdict(report.down)), up=Queue(**asdict(report.up)))


def _lateness(late_s: NDArray[np.float64]) -> Lateness:
    if not late_s.size:
        return Lateness(n=0, p50_s=None, p99_s=None, max_s=None)
    p50_s, p99_s = np.percentile(late_s, [50, 99]).tolist()
    return Lateness(
        n=late_s.size,
        p50_s=p50_s,
        p99_s=p99_s if late_s.size >= 100 else None,
        max_s=float(late_s.max()),
    )
