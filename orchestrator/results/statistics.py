"""The statistics of a sweep: pure functions of one prompt set's values.

Comparisons are paired by prompt: both policies had the same prompts under the same fading, so
differences between prompts do not blur differences between policies.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel
from scipy import stats

RESAMPLES = 10_000
CONFIDENCE = 0.95
SEED = 0
# Drawn numbers held in memory at a time.
MOST_DRAWN = 2_000_000


class Estimate(BaseModel):
    """A value with its bootstrap interval (percentile method); None for a single value."""

    value: float
    low: float | None
    high: float | None


class Spread(BaseModel):
    """Median, 10th and 90th percentile over requests, by linear interpolation."""

    p10: float
    p50: float
    p90: float


def spread(values: Sequence[float]) -> Spread:
    """Return the spread of at least one value."""
    p10, p50, p90 = map(float, np.percentile(values, [10, 50, 90]))
    return Spread(p10=p10, p50=p50, p90=p90)


def median(values: Sequence[float]) -> Estimate:
    """Return the median, and how far another sample of prompts could have moved it."""
    return percentile(values, 50)


def percentile(values: Sequence[float], q: float) -> Estimate:
    """Return the q-th percentile, by linear interpolation."""
    return _bootstrapped(lambda x, axis=-1: np.percentile(x, q, axis=axis), values)


def mean(values: Sequence[float]) -> Estimate:
    """Return the mean with its interval."""
    return _bootstrapped(np.mean, values)


def difference(reference: Sequence[float], other: Sequence[float]) -> Estimate:
    """Return median(other) - median(reference), paired as in `cut`."""
    return _bootstrapped(
        lambda x, y, axis=-1: np.median(y, axis=axis) - np.median(x, axis=axis), reference, other
    )


def cut(reference: Sequence[float], other: Sequence[float]) -> Estimate:
    """Return 1 - median(other) / median(reference) for the same prompts' latencies, in one order.

    The bootstrap draws prompts, each with both of its latencies.
    """
    return _bootstrapped(
        lambda x, y, axis=-1: 1 - np.median(y, axis=axis) / np.median(x, axis=axis),
        reference,
        other,
    )


def wilson(right: int, n: int) -> tuple[float, float]:
    """Return Wilson's interval of the share `right` / n, n ≥ 1; never empty, even for 0 and 1."""
    interval = stats.binomtest(right, n).proportion_ci(CONFIDENCE, method="wilson")
    return float(interval.low), float(interval.high)


def mcnemar_p(reference: Sequence[bool], other: Sequence[bool]) -> float:
    """Return p of McNemar's exact test of two policies' answers to the same prompts.

    Two-sided: the probability that the prompts that only one policy gets right are divided at least
    as unevenly if both policies are equally likely to be that one. 1 if there are no such prompts.
    """
    pairs = list(zip(reference, other, strict=True))
    lost = sum(before and not after for before, after in pairs)
    gained = sum(after and not before for before, after in pairs)
    if lost + gained == 0:
        return 1.0
    return float(stats.binomtest(gained, lost + gained, 0.5).pvalue)


def _bootstrapped(
    statistic: Callable[..., NDArray[np.float64]], *samples: Sequence[float]
) -> Estimate:
    data = [np.asarray(sample, dtype=float) for sample in samples]
    value = float(statistic(*data))
    if data[0].size == 1:
        return Estimate(value=value, low=None, high=None)
    drawn: Any = stats.bootstrap(
        data,
        statistic,
        paired=True,
        vectorized=True,
        n_resamples=RESAMPLES,
        batch=max(1, min(1000, MOST_DRAWN // data[0].size)),
        confidence_level=CONFIDENCE,
        method="percentile",
        random_state=SEED,
    )
    interval = drawn.confidence_interval
    low, high = sorted(map(float, interval))  # of equal values, rounding may have them cross
    return Estimate(value=value, low=low, high=high)
