"""The last minute: what counters counted from each reading to the next."""

from __future__ import annotations

from collections import defaultdict, deque
from dataclasses import dataclass

from orchestrator.top.exposition import Labels, Numbers, increase
from orchestrator.top.source import Reading

MINUTE_S = 60.0


@dataclass(frozen=True)
class Step:
    """From one reading that had counters to the next; None: this reading has none."""

    ended_s: float
    took_s: float
    counted: Numbers | None


class History:
    """The steps of the last minute, the newest last."""

    def __init__(self) -> None:
        self.steps: deque[Step] = deque()
        self._last: tuple[float, Numbers] | None = None

    def add(self, reading: Reading) -> None:
        """Take the next reading."""
        if reading.counters is None:
            self.steps.append(Step(reading.at_s, 0.0, None))
        else:
            if self._last is not None:
                began_s, before = self._last
                counted = increase(before, reading.counters)
                self.steps.append(Step(reading.at_s, reading.at_s - began_s, counted))
            self._last = reading.at_s, reading.counters
        while self.steps and self.steps[0].ended_s <= reading.at_s - MINUTE_S:
            self.steps.popleft()

    def over(self, seconds: float) -> tuple[float, Numbers]:
        """How long the steps that ended in the last so many seconds took, and all they counted."""
        took_s = 0.0
        sums: dict[str, dict[Labels, float]] = defaultdict(lambda: defaultdict(float))
        for step in self.steps:
            if step.counted is None or step.ended_s <= self.steps[-1].ended_s - seconds:
                continue
            took_s += step.took_s
            for name, samples in step.counted.items():
                for labels, value in samples.items():
                    sums[name][labels] += value
        return took_s, sums
