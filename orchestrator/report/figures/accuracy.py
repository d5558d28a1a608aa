"""Accuracy against latency: higher is better, left is faster."""

from __future__ import annotations

from dataclasses import dataclass

from matplotlib.lines import Line2D

from orchestrator.report.figures import style
from orchestrator.report.figures.drawing import Drawing
from orchestrator.report.groups import Group
from orchestrator.report.load import Recorded
from orchestrator.results import statistics
from orchestrator.results.table import ms

LEAST_RANGE = 20.0  # points of accuracy that the axis spans, so that noise does not look large


@dataclass(frozen=True)
class Point:
    """A run's median latency, and its accuracy with Wilson's 95 % interval [%]."""

    latency: statistics.Estimate
    accuracy: float
    low: float
    high: float

    @property
    def text(self) -> str:
        """The accuracy with its interval, as text."""
        return f"{self.accuracy:.1f} % (95 % interval {self.low:.1f} to {self.high:.1f} %)"


def draw(group: Group) -> Drawing | None:
    """Draw accuracy and median latency of each run with intervals; None for fewer than two runs."""
    found = {label: _point(run) for label, run in group.runs.items()}
    points = {label: point for label, point in found.items() if point is not None}
    if len(points) < 2:
        return None
    with style.applied():
        figure = style.figure(3.3)
        axes = figure.add_subplot()
        for number, point in enumerate(points.values()):
            latency = point.latency
            low, high = latency.low or latency.value, latency.high or latency.value
            axes.errorbar(
                1e3 * latency.value,
                point.accuracy,
                yerr=[[point.accuracy - point.low], [point.high - point.accuracy]],
                xerr=[[1e3 * (latency.value - low)], [1e3 * (high - latency.value)]],
                markersize=7,
                elinewidth=1.0,
                capsize=2,
                **style.point(number),
            )
        axes.set_xlabel("median end to end [ms], 95 % interval")
        axes.set_ylabel("accuracy [%], 95 % interval")
        axes.margins(x=0.12)
        lowest = min(point.low for point in points.values())
        axes.set_ylim(max(0.0, min(lowest - 2, 102 - LEAST_RANGE)), 102)
        style.key(
            figure,
            [
                Line2D([], [], label=label, markersize=7, **style.point(number))
                for number, label in enumerate(points)
            ],
        )
    return Drawing(f"{group.slug}-accuracy", "Accuracy against latency", _finding(points), figure)


def _point(run: Recorded) -> Point | None:
    accuracy, interval = run.summary.accuracy, run.summary.accuracy_interval
    if accuracy is None or interval is None or not run.answered:
        return None
    return Point(
        statistics.median([request.end_to_end_s for request, _ in run.answered]),
        *(100 * share for share in (accuracy, *interval)),
    )


def _finding(points: dict[str, Point]) -> str:
    best = max(point.accuracy for point in points.values())
    fastest, found = min(points.items(), key=lambda item: item[1].latency.value)
    first, reference = next(iter(points.items()))
    best_labels = [label for label, point in points.items() if point.accuracy == best]
    text = (
        f"{fastest} is fastest, {ms(found.latency.value)} ms in the median at an accuracy of "
        f"{found.text}"
    )
    if fastest != first:
        text += f"; {first}: {ms(reference.latency.value)} ms, {reference.accuracy:.1f} %"
    return f"{text}. The highest accuracy, {best:.1f} %, is that of {', '.join(best_labels)}."
