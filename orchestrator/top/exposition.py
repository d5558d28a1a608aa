"""Selected samples of a `/metrics` page; the rest, most of it, is not parsed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from itertools import chain
from math import isnan
from typing import TypeAlias

from prometheus_client.parser import text_string_to_metric_families

Labels: TypeAlias = frozenset[tuple[str, str]]
# Values by sample name and labels.
Numbers: TypeAlias = Mapping[str, Mapping[Labels, float]]

# Beyond these bounds, sums and ratios may not be finite.
_LEAST, _MOST = 1e-12, 1e18


def read(text: str, names: Iterable[str]) -> Numbers:
    """Return the samples of these names, with all their labels.

    Raises:
        ValueError: the text is not a metrics page, or a value is out of bounds.
    """
    wanted = tuple(f"{name}{end}" for name in names for end in "{ ")
    lines = [line for line in text.splitlines() if line.startswith(wanted)]
    numbers: dict[str, dict[Labels, float]] = defaultdict(dict)
    try:
        families = list(text_string_to_metric_families("\n".join([*lines, ""])))
    except (IndexError, KeyError) as error:  # from the parser, if a line is cut off
        raise ValueError(f"no metrics: {error}") from None
    for sample in chain.from_iterable(family.samples for family in families):
        if sample.value and not _LEAST <= abs(sample.value) <= _MOST:
            raise ValueError(f"{sample.name} is {sample.value}")
        if sample.name.endswith("_bucket"):
            _bound(sample.labels)
        numbers[sample.name][frozenset(sample.labels.items())] = sample.value
    return dict(numbers)


def _bound(labels: Mapping[str, str]) -> float:
    """Return a bucket's upper bound; ValueError if it has none."""
    bound = float(labels.get("le", "nan"))
    if isnan(bound):
        raise ValueError("a bucket has no bound")
    return bound


def increase(before: Numbers, after: Numbers) -> Numbers:
    """Return the increase of each counter between two readings.

    A counter that went down was reset to 0 in between; a new one started at 0.
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
    """Return the sum of a metric's samples that have these labels."""
    wanted = labels.items()
    return sum(value for present, value in numbers.get(name, {}).items() if wanted <= present)


def quantile(share: float, numbers: Numbers, name: str) -> float | None:
    """Estimate a quantile of a histogram as PromQL's histogram_quantile does.

    Linear within a bucket; the greatest finite bound if it lies above. None without observations.
    """
    buckets = sorted((_bound(dict(labels)), n) for labels, n in numbers.get(name, {}).items())
    if not buckets or buckets[-1][1] <= 0:
        return None
    rank = share * buckets[-1][1]
    lower, below = 0.0, 0.0
    for bound, count in buckets[:-1]:
        if count >= rank:
            return lower + (bound - lower) * (rank - below) / (count - below)
        lower, below = bound, count
    return lower
