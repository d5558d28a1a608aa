"""The progress of the newest replay, as `GET /status` and Prometheus show it."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable

from orchestrator.contracts.http import Replay
from orchestrator.contracts.replay_progress import Progress
from orchestrator.metrics import OrchestratorMetrics

# A replay reports once a second; one that was killed is silent.
SILENT_AFTER_S = 10.0


class ReplayBoard:
    """The newest progress, for `GET /status` and for Prometheus; for any thread."""

    def __init__(
        self, metrics: OrchestratorMetrics, now_s: Callable[[], float] = time.monotonic
    ) -> None:
        self._metrics = metrics
        self._now_s = now_s
        self._lock = threading.Lock()
        self._newest: Progress | None = None
        self._arrived_s = 0.0
        metrics.replay_running.set_function(self._running)
        metrics.replay_accuracy_ratio.set(math.nan)  # no accuracy is known yet, and 0 would be one

    def take(self, progress: Progress) -> None:
        """Show this progress from now on, also after its replay has ended."""
        metrics = self._metrics
        with self._lock:
            self._newest, self._arrived_s = progress, self._now_s()
            metrics.replay.info({"prompts": progress.prompts})
            metrics.replay_planned_requests.set(progress.planned)
            metrics.replay_done_requests.set(progress.done)
            metrics.replay_failed_requests.set(progress.failed)
            accuracy = progress.accuracy
            metrics.replay_accuracy_ratio.set(math.nan if accuracy is None else accuracy)

    def status(self) -> Replay | None:
        """Return the newest progress with its accuracy; None before the first replay."""
        with self._lock:
            newest = self._newest
        if newest is None:
            return None
        reported = newest.model_dump() | {"running": bool(self._running())}
        return Replay(**reported, accuracy=newest.accuracy)

    def _running(self) -> float:
        with self._lock:
            if self._newest is None or not self._newest.running:
                return 0.0
            return float(self._now_s() - self._arrived_s < SILENT_AFTER_S)
