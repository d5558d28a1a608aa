"""Link rates as the columns of a picture: gaps are left blank, many intervals are averaged."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from orchestrator.report.rates import Rates

MOST = 300  # columns; more could not be told apart on a phone
# An interval that begins later than so many intervals after the one before is not its successor.
GAP = 1.5

Edges = NDArray[np.float64]
Values = NDArray[np.float64]


def columns(rates: Rates) -> tuple[Edges, Values]:
    """Where columns begin and end [Unix s], (n + 1,), and each one's rates [Mbit/s].

    Values are n × devices × (down, up); NaN where no interval is known, or none is limited.
    """
    edges, values = _without_gaps(rates)
    return (edges, values) if len(values) <= MOST else _averaged(edges, values)


def _without_gaps(rates: Rates) -> tuple[Edges, Values]:
    assert rates.lasts_s is not None
    edges: list[float] = []
    values = []
    following = [*rates.begin_s[1:], np.inf]
    for begin_s, next_s, of_devices in zip(rates.begin_s, following, rates.mbps, strict=True):
        edges.append(begin_s)
        values.append(of_devices)
        if next_s - begin_s > GAP * rates.lasts_s:
            edges.append(begin_s + rates.lasts_s)
            values.append(np.full_like(of_devices, np.nan))
    return np.array(edges), np.array(values[:-1])


def _averaged(edges: Edges, values: Values) -> tuple[Edges, Values]:
    """Means over equal times, of what is known; NaN where less than half is."""
    at_s = edges - edges[0]
    grid_s = np.linspace(0.0, at_s[-1], MOST + 1)
    lasts_s = np.diff(at_s)
    means = np.empty((MOST, *values.shape[1:]))
    for link in np.ndindex(values.shape[1:]):
        series = values[:, *link]
        known_s = np.where(np.isnan(series), 0.0, lasts_s)
        of_known_s = _between(grid_s, at_s, known_s)
        total = _between(grid_s, at_s, np.nan_to_num(series) * known_s)
        enough = of_known_s >= 0.5 * np.diff(grid_s)
        means[:, *link] = np.divide(total, of_known_s, out=np.full(MOST, np.nan), where=enough)
    return grid_s + edges[0], means


def _between(grid_s: Edges, at_s: Edges, amounts: NDArray[np.float64]) -> NDArray[np.float64]:
    """How much of amounts, each spread evenly from one time to the next, is in each grid cell."""
    so_far = np.concatenate([[0.0], np.cumsum(amounts)])
    return np.diff(np.interp(grid_s, at_s, so_far))
