"""What many values come to: mean and percentiles, with intervals, and where too few values end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from pydantic import BaseModel

if TYPE_CHECKING:
    from orchestrator.results.statistics import Estimate

Interval = tuple[float, float]


class Average(BaseModel):
    """A duration per request [s]; None where no request was answered."""

    mean_s: float | None
    p50_s: float | None


class Percentiles(Average):
    """Mean and percentiles of `n` durations [s], by linear interpolation; None of too few.

    Of fewer than 10, 20 and 100 values the 90th, 95th and 99th percentile would be just about the
    maximum.
    """

    n: int
    p90_s: float | None
    p95_s: float | None
    p99_s: float | None


class Distribution(Percentiles):
    """The same with 95 % bootstrap intervals over requests; None of fewer than two."""

    mean_interval_s: Interval | None
    p50_interval_s: Interval | None
    p95_interval_s: Interval | None


def average(values: Sequence[float]) -> Average:
    """Mean and median."""
    return Average(mean_s=mean(values), p50_s=_percentile(values, 50))


def percentiles(values: Sequence[float]) -> Percentiles:
    """Without intervals."""
    return Percentiles(
        n=len(values),
        mean_s=mean(values),
        p50_s=_percentile(values, 50),
        p90_s=_percentile(values, 90),
        p95_s=_percentile(values, 95),
        p99_s=_percentile(values, 99),
    )


def distribution(values: Sequence[float]) -> Distribution:
    """With intervals."""
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
    """None of no values."""
    return float(np.mean(values)) if values else None


def share_interval(scores: Sequence[float]) -> Interval | None:
    """Wilson's 95 % interval of the share of scores that are 1, the others being 0."""
    from orchestrator.results import statistics

    return statistics.wilson(sum(score == 1 for score in scores), len(scores)) if scores else None


def _interval(estimate: Estimate) -> Interval | None:
    low, high = estimate.low, estimate.high
    return None if low is None or high is None else (low, high)


def _percentile(values: Sequence[float], q: int) -> float | None:
    enough = q == 50 or len(values) * (100 - q) >= 100
    return float(np.percentile(values, q)) if values and enough else None
