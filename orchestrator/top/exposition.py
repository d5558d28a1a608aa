"""Those numbers of a `/metrics` page that are wanted; the rest, most of it, is not even parsed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import TypeAlias

from prometheus_client.parser import text_string_to_metric_families

Labels: TypeAlias = frozenset[tuple[str, str]]
# By the sample's name, and its labels.
Numbers: TypeAlias = Mapping[str, Mapping[Labels, float]]


def read(text: str, names: Iterable[str]) -> Numbers:
    """The samples of these names, all labels of each; ValueError if the text is no such page."""
    wanted = tuple(f"{name}{end}" for name in names for end in "{ ")
    lines = [line for line in text.splitlines() if line.startswith(wanted)]
    numbers: dict[str, dict[Labels, float]] = defaultdict(dict)
    for family in text_string_to_metric_families("\n".join([*lines, ""])):
        for sample in family.samples:
            numbers[sample.name][frozenset(sample.labels.items())] = sample.value
    return dict(numbers)


def increase(before: Numbers, after: Numbers) -> Numbers:
    """What counters counted between two readings.

    One that went down began again at 0 meanwhile, one that is new began at 0.
    """
    counted: dict[str, dict[Labels, float]] = {}
    for name, samples in after.items():
        old = before.get(name, {})
        counted[name] = {
            labels: value - (base if (base := old.get(labels, 0.0)) <= value else 0.0)
            for labels, value in samples.items()
        }
    return counted


def total(numbers: Numbers, name: str, **labels: str) -> float:
    """The sum of a name's samples that have these labels."""
    asked = labels.items()
    return sum(value for have, value in numbers.get(name, {}).items() if asked <= have)


def quantile(share: float, numbers: Numbers, name: str) -> float | None:
    """A quantile of a histogram's observations, as PromQL's histogram_quantile estimates it.

    Linear within a bucket; the greatest finite bound if it lies above. None without observations.
    """
    buckets = sorted((float(dict(labels)["le"]), n) for labels, n in numbers.get(name, {}).items())
    if not buckets or not buckets[-1][1]:
        return None
    rank = share * buckets[-1][1]
    lower, below = 0.0, 0.0
    for bound, count in buckets[:-1]:
        if count >= rank:
            return lower + (bound - lower) * (rank - below) / (count - below)
        lower, below = bound, count
    return lower
