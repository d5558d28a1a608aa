"""The last minute: the increase of counters from each reading to the next."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from orchestrator.top.exposition import Labels, Numbers, increase
from orchestrator.top.poller import Reading

MINUTE_S = 60.0
PARTS = tuple(
    f"wdmoe_{part}_seconds_sum" for part in ("downlink", "device_wait", "compute", "uplink")
)


@dataclass(frozen=True)
class Step:
    """The step from one reading with counters to the next.

    `counted`: increase of the counters; None: the later reading has none. `message_s`: mean time
    of a message by device, from the base station and back.
    """

    ended_s: float
    took_s: float
    counted: Numbers | None
    message_s: Mapping[str, float]


def message_s(counted: Numbers) -> dict[str, float]:
    """Return the mean time of a message by device, for the devices that had messages."""
    took_s: dict[str, float] = defaultdict(float)
    for part in PARTS:
        for labels, seconds in counted.get(part, {}).items():
            took_s[dict(labels).get("device", "")] += seconds
    messages = counted.get("wdmoe_device_messages_total", {})
    by_device = {dict(labels).get("device", ""): number for labels, number in messages.items()}
    return {device: took_s[device] / number for device, number in by_device.items() if number}


class History:
    """The steps of the last minute, the newest last."""

    def __init__(self) -> None:
        self.steps: deque[Step] = deque()
        self._last: tuple[float, Numbers] | None = None

    def add(self, reading: Reading) -> None:
        """Add the next reading, and forget steps older than a minute."""
        if reading.counters is None:
            self.steps.append(Step(reading.at_s, 0.0, None, {}))
        else:
            if self._last is not None:
                began_s, before = self._last
                counted = increase(before, reading.counters)
                took_s = reading.at_s - began_s
                self.steps.append(Step(reading.at_s, took_s, counted, message_s(counted)))
            self._last = reading.at_s, reading.counters
        while self.steps and self.steps[0].ended_s <= reading.at_s - MINUTE_S:
            self.steps.popleft()

    def over(self, seconds: float, names: Sequence[str]) -> tuple[float, Numbers]:
        """Return the duration of the steps of the last `seconds` [s], and what they counted."""
        took_s = 0.0
        sums: dict[str, dict[Labels, float]] = defaultdict(lambda: defaultdict(float))
        for step in self.steps:
            if step.counted is None or step.ended_s <= self.steps[-1].ended_s - seconds:
                continue
            took_s += step.took_s
            for name in names:
                for labels, value in step.counted.get(name, {}).items():
                    sums[name][labels] += value
        return took_s, sums
