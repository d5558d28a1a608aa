"""Resample link rates to the columns of a figure: gaps stay blank, many intervals are averaged."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from orchestrator.report.rates import Rates

MOST = 300  # columns; more could not be distinguished on a phone
# An interval that begins more than this many interval lengths after another is not its successor.
GAP = 1.5

Edges = NDArray[np.float64]
Values = NDArray[np.float64]


def columns(rates: Rates) -> tuple[Edges, Values]:
    """Return the edges of the columns [Unix s], (n + 1,), and their rates [Mbit/s].

    Rates are n × devices × (down, up); NaN where no interval is known, or none is limited.
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
    """Return means of known rates over columns of equal width; NaN if less than half is known."""
    at_s = edges - edges[0]
    grid_s = np.linspace(0.0, at_s[-1], MOST + 1)
    lasts_s = np.diff(at_s)
    means = np.empty((MOST, *values.shape[1:]))
    for link in np.ndindex(values.shape[1:]):
        series = values[:, *link]
        known_s = np.where(np.isnan(series), 0.0, lasts_s)
        column_known_s = _per_column(grid_s, at_s, known_s)
        total = _per_column(grid_s, at_s, np.nan_to_num(series) * known_s)
        enough = column_known_s >= 0.5 * np.diff(grid_s)
        means[:, *link] = np.divide(total, column_known_s, out=np.full(MOST, np.nan), where=enough)
    return grid_s + edges[0], means


def _per_column(grid_s: Edges, at_s: Edges, amounts: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the share of amounts, each spread evenly between two times, in each grid cell."""
    cumulative = np.concatenate([[0.0], np.cumsum(amounts)])
    return np.diff(np.interp(grid_s, at_s, cumulative))
