"""Mean and percentiles of many values, with confidence intervals; None for too few values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from pydantic import BaseModel

if TYPE_CHECKING:
    from orchestrator.results.statistics import Estimate

Interval = tuple[float, float]


class Average(BaseModel):
    """Mean and median of a duration per request [s]; None if no request was answered."""

    mean_s: float | None
    p50_s: float | None


class Percentiles(Average):
    """Mean and percentiles of `n` durations [s], by linear interpolation; None for too few.

    With fewer than 10, 20 and 100 values, the 90th, 95th and 99th percentiles would be little more
    than the maximum.
    """

    n: int
    p90_s: float | None
    p95_s: float | None
    p99_s: float | None


class Distribution(Percentiles):
    """Percentiles with 95 % bootstrap intervals over requests; None for fewer than two."""

    mean_interval_s: Interval | None
    p50_interval_s: Interval | None
    p95_interval_s: Interval | None


def average(values: Sequence[float]) -> Average:
    """Return the mean and median of durations [s]."""
    return Average(mean_s=mean(values), p50_s=_percentile(values, 50))


def percentiles(values: Sequence[float]) -> Percentiles:
    """Return the mean and percentiles of durations [s], without intervals."""
    return Percentiles(
        n=len(values),
        mean_s=mean(values),
        p50_s=_percentile(values, 50),
        p90_s=_percentile(values, 90),
        p95_s=_percentile(values, 95),
        p99_s=_percentile(values, 99),
    )


def distribution(values: Sequence[float]) -> Distribution:
    """Return the mean and percentiles of durations [s], with intervals."""
    from orchestrator.results import statistics  # scipy takes a second to load

    plain = percentiles(values)
    return Distribution(
        **plain.model_dump(),
        mean_interval_s=_interval(statistics.mean(values)) if values else None,
        p50_interval_s=_interval(statistics.median(values)) if values else None,
        p95_interval_s=(
            None if plain.p95_s is None else _interval(statistics.percentile(values, 95))
        ),
    )


def mean(values: Sequence[float]) -> float | None:
    """Return the mean; None for no values."""
    return float(np.mean(values)) if values else None


def share_interval(scores: Sequence[float]) -> Interval | None:
    """Return Wilson's 95 % interval of the share of scores that are 1; the others are 0."""
    from orchestrator.results import statistics

    return statistics.wilson(sum(score == 1 for score in scores), len(scores)) if scores else None


def _interval(estimate: Estimate) -> Interval | None:
    low, high = estimate.low, estimate.high
    return None if low is None or high is None else (low, high)


def _percentile(values: Sequence[float], q: int) -> float | None:
    enough = q == 50 or len(values) * (100 - q) >= 100
    return float(np.percentile(values, q)) if values and enough else None
