"""How far the replay is that asks just now, as it tells the orchestrator itself."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from orchestrator.metrics import OrchestratorMetrics

# A replay tells once a second; one that was killed can tell nothing.
SILENT_AFTER_S = 10.0
MAX_BYTES = 4096
MAX_NAME = 256


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("allowed: printable characters")
    return text


_Count = Annotated[int, Field(ge=0, lt=2**53)]


class Progress(BaseModel):
    """Body of `POST /replay`: what became so far of the requests of one run.

    Attributes:
        prompts: the set's name.
        done: requests ended, the failed ones too.
        scored: those with a score, which is from 0 to 1; `score_sum` is the sum of these.
        running: whether more is to come.
    """

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")

    prompts: Annotated[str, Field(min_length=1, max_length=MAX_NAME), AfterValidator(_printable)]
    planned: _Count
    done: _Count
    failed: _Count
    scored: _Count
    score_sum: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    running: bool

    @model_validator(mode="after")
    def _is_of_one_run(self) -> Progress:
        if not self.failed + self.scored <= self.done <= self.planned:
            raise ValueError("allowed: failed + scored <= done <= planned")
        if self.score_sum > self.scored:
            raise ValueError("allowed: score_sum <= scored")
        return self

    @property
    def accuracy(self) -> float | None:
        """The mean score; None as long as there is none."""
        return self.score_sum / self.scored if self.scored else None


class ProgressBoard:
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
        metrics.replay_accuracy_ratio.set(math.nan)  # there is none yet, and 0 would be one

    def take(self, progress: Progress) -> None:
        """Show this from now on, also after its replay has ended."""
        metrics = self._metrics
        with self._lock:
            self._newest, self._arrived_s = progress, self._now_s()
            metrics.replay.info({"prompts": progress.prompts})
            metrics.replay_planned_requests.set(progress.planned)
            metrics.replay_done_requests.set(progress.done)
            metrics.replay_failed_requests.set(progress.failed)
            accuracy = progress.accuracy
            metrics.replay_accuracy_ratio.set(math.nan if accuracy is None else accuracy)

    def status(self) -> dict[str, Any] | None:
        """The newest, with its accuracy; None if there was no replay yet."""
        with self._lock:
            newest = self._newest
        if newest is None:
            return None
        told = newest.model_dump() | {"running": bool(self._running())}
        return told | {"accuracy": newest.accuracy}

    def _running(self) -> float:
        with self._lock:
            if self._newest is None or not self._newest.running:
                return 0.0
            return float(self._now_s() - self._arrived_s < SILENT_AFTER_S)
