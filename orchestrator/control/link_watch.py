"""Whether each link is as the plan in force says, as far as its device's reports show."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

from orchestrator.control.device_reports import DeviceReports
from orchestrator.control.timeline import Timeline
from orchestrator.metrics import OrchestratorMetrics

# A device reports once a second, and after each change.
SILENT_AFTER_S = 5.0
# A state is applied within milliseconds; a host this late is overloaded.
OVERDUE_AFTER_S = 2.0


class LinkWatch:
    """The faults of links by the newest reports, for any thread and for Prometheus.

    Args:
        plan: returns the plan in force.
    """

    def __init__(
        self,
        reports: DeviceReports,
        devices: int,
        plan: Callable[[], Timeline],
        metrics: OrchestratorMetrics,
    ) -> None:
        self._reports = reports
        self._devices = devices
        self._plan = plan
        began_s = time.monotonic()
        for q in range(devices):
            age = metrics.link_report_age_seconds.labels(str(q))
            age.set_function(partial(self._age_s, q, began_s))
            metrics.link_fault.labels(str(q)).set_function(partial(self._is_faulty, q))

    def fault(self, device: int) -> str | None:
        """Return why a device's link is not, or may not be, as the plan says; None if it is."""
        newest = self._reports.newest(device)
        if newest is None:
            return "nothing was reported of it yet"
        report, arrived_s = newest
        if report.error is not None:
            return report.error
        age_s = time.monotonic() - arrived_s
        if age_s > SILENT_AFTER_S:
            return f"nothing was reported of it for {age_s:.0f} s"
        overdue_s = self._plan().overdue_s(report.epoch, report.interval, time.time())
        if overdue_s > OVERDUE_AFTER_S:
            return f"has not applied what is in force, due {overdue_s:.0f} s ago"
        return None

    def faults(self) -> dict[int, str]:
        """Return the faults by device."""
        found = {q: self.fault(q) for q in range(self._devices)}
        return {q: fault for q, fault in found.items() if fault is not None}

    def _age_s(self, device: int, began_s: float) -> float:
        newest = self._reports.newest(device)
        return time.monotonic() - (began_s if newest is None else newest[1])

    def _is_faulty(self, device: int) -> float:
        return float(self.fault(device) is not None)
