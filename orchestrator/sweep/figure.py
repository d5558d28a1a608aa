"""The figure of a sweep for one profile, in the style of the paper's Figure 3.

set    set    set       accuracy (left axis) and median latency (right axis) against θ,
set    set              topk to the left of all θ, other policies to the right
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from orchestrator.sweep.plan import REFERENCE
from orchestrator.sweep.summary import CellSummary

COLUMNS = 3
# Okabe-Ito colours, distinct in every kind of colour vision; markers and dashes differ as well.
_ACCURACY: dict[str, Any] = {"color": "#0072B2", "marker": "o", "linewidth": 1.6}
_MEASURED: dict[str, Any] = {"color": "#D55E00", "marker": "s", "linewidth": 1.6}
_EQ8: dict[str, Any] = {"color": "#000000", "marker": "", "linestyle": "--", "linewidth": 1.2}
_BAND_ALPHA = 0.2
_LEAST_RANGE = 20.0  # points of accuracy that the axis spans, so that noise does not look large
_SIZE = 9


def draw(cells: Sequence[CellSummary], heading: str, path: Path) -> None:
    """Draw one profile's cells under a heading into PATH.png and PATH.svg."""
    sets = list(dict.fromkeys(cell.prompts for cell in cells))
    columns = min(COLUMNS, len(sets))
    rows = math.ceil(len(sets) / columns)
    figure = Figure(figsize=(1 + 4 * columns, 1.2 + 3 * rows), dpi=150, layout="constrained")
    figure.suptitle(f"{heading}: accuracy and latency against θ", x=0.01, ha="left")
    lowest = _lowest(cells)
    for number, name in enumerate(sets):
        axes = figure.add_subplot(rows, columns, number + 1)
        of_set = [cell for cell in cells if cell.prompts == name]
        _draw_set(axes, of_set, lowest, left=number % columns == 0)
    figure.legend(handles=_key(), loc="outside lower center", ncols=3, fontsize=_SIZE)
    FigureCanvasAgg(figure).print_figure(f"{path}.png")
    FigureCanvasSVG(figure).print_figure(f"{path}.svg")


def _draw_set(axes: Axes, cells: Sequence[CellSummary], lowest: float, *, left: bool) -> None:
    places = _places(cells)
    times = axes.twinx()
    axes.set_zorder(times.get_zorder() + 1)  # accuracy in front of the bands
    axes.patch.set_visible(False)
    for line in _lines(cells):
        _draw_accuracy(axes, line, places)
        _draw_latency(times, line, places)
    axes.set_title(f"{cells[0].prompts} (n = {cells[0].n})", fontsize=10, loc="left")
    axes.set_xticks(
        [places[cell.label] for cell in cells],
        [_tick(cell) for cell in cells],
        rotation=30 if any(cell.theta is None for cell in cells[1:]) else 0,
    )
    axes.set_xlabel("θ", fontsize=_SIZE)
    axes.set_ylim(lowest, 101)
    times.set_ylim(bottom=0)
    if left:
        axes.set_ylabel("accuracy [%]", color=_ACCURACY["color"], fontsize=_SIZE)
    times.set_ylabel("median latency [ms]", color=_MEASURED["color"], fontsize=_SIZE)
    for side, colour in ((axes, _ACCURACY["color"]), (times, _MEASURED["color"])):
        side.tick_params(labelsize=_SIZE)
        side.tick_params(axis="y", labelcolor=colour)
    axes.grid(axis="x", alpha=0.25, linewidth=0.6)


def _draw_accuracy(axes: Axes, line: Sequence[CellSummary], places: dict[str, float]) -> None:
    shown = [
        (places[cell.label], 100 * cell.accuracy, *(100 * end for end in cell.accuracy_interval))
        for cell in line
        if cell.accuracy is not None and cell.accuracy_interval is not None
    ]
    if shown:
        place, accuracy, low, high = map(np.array, zip(*shown, strict=True))
        error = [accuracy - low, high - accuracy]
        axes.errorbar(place, accuracy, error, capsize=2, elinewidth=0.8, markersize=5, **_ACCURACY)


def _draw_latency(axes: Axes, line: Sequence[CellSummary], places: dict[str, float]) -> None:
    shown = [(places[cell.label], cell.measured) for cell in line if cell.measured is not None]
    place = [where for where, _ in shown]
    eq8 = [1e3 * measured.eq8_p50_s for _, measured in shown]
    latency = [1e3 * measured.latency.value for _, measured in shown]
    low = [1e3 * (m.latency.value if m.latency.low is None else m.latency.low) for _, m in shown]
    high = [1e3 * (m.latency.value if m.latency.high is None else m.latency.high) for _, m in shown]
    axes.plot(place, latency, markersize=5, **_MEASURED)
    if len(shown) > 1:
        axes.fill_between(place, low, high, color=_MEASURED["color"], alpha=_BAND_ALPHA, lw=0)
        axes.plot(place, eq8, **_EQ8)
    elif shown:  # a single policy, not a line over θ
        axes.vlines(place, low, high, color=_MEASURED["color"], alpha=2 * _BAND_ALPHA, lw=4)
        axes.plot(place, eq8, **{**_EQ8, "marker": "_", "markersize": 12})


def _lines(cells: Sequence[CellSummary]) -> list[list[CellSummary]]:
    """Return the lines to draw: wlr over θ is one, every other policy a single point."""
    line = sorted((cell for cell in cells if cell.theta is not None), key=lambda c: c.theta or 0.0)
    return [*([line] if line else []), *([cell] for cell in cells if cell.theta is None)]


def _places(cells: Sequence[CellSummary]) -> dict[str, float]:
    """Return the position of each policy on the horizontal axis, on the scale of θ."""
    thetas = sorted(cell.theta for cell in cells if cell.theta is not None) or [0.0]
    steps = [after - before for before, after in itertools.pairwise(thetas)]
    step = min(steps, default=0.1)
    places = {REFERENCE: thetas[0] - step}
    right = thetas[-1]
    for cell in cells:
        if cell.theta is not None:
            places[cell.label] = cell.theta
        elif cell.label != REFERENCE:
            right += step
            places[cell.label] = right
    return places


def _tick(cell: CellSummary) -> str:
    return cell.label if cell.theta is None else f"{cell.theta:g}"


def _lowest(cells: Sequence[CellSummary]) -> float:
    """Return the start of the accuracy axis of all panels [%], with room for every error bar."""
    ends = [
        100 * cell.accuracy_interval[0] - 1 for cell in cells if cell.accuracy_interval is not None
    ]
    return max(0.0, min(5 * math.floor(min(ends, default=0.0) / 5), 100 - _LEAST_RANGE))


def _key() -> list[Line2D]:
    return [
        Line2D([], [], label="accuracy, 95 % interval", **_ACCURACY),
        Line2D([], [], label="median latency measured, 95 % interval", **_MEASURED),
        Line2D([], [], label="median of Eq. 8", **_EQ8),
    ]
