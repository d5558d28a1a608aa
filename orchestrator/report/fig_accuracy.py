"""Accuracy against latency: up is better, left is faster."""

from __future__ import annotations

from matplotlib.lines import Line2D

from orchestrator.report import style
from orchestrator.report.drawing import Drawing
from orchestrator.report.groups import Group
from orchestrator.sweep import analysis
from orchestrator.sweep.tables import ms

LEAST_RANGE = 20.0  # points of accuracy that the axis spans, so that noise does not look large


def draw(group: Group) -> Drawing | None:
    """Each run's accuracy and median latency with their uncertainties; None of fewer than two."""
    points = {}
    for label, one in group.runs.items():
        accuracy, error = one.summary.accuracy, one.summary.accuracy_standard_error
        if accuracy is not None and error is not None and one.answered:
            latency = analysis.median([request.end_to_end_s for request, _ in one.answered])
            points[label] = (latency, accuracy, error)
    if len(points) < 2:
        return None
    with style.applied():
        figure = style.figure(3.3)
        axes = figure.add_subplot()
        for number, (latency, accuracy, error) in enumerate(points.values()):
            low, high = latency.low or latency.value, latency.high or latency.value
            axes.errorbar(
                1e3 * latency.value,
                100 * accuracy,
                yerr=100 * error,
                xerr=[[1e3 * (latency.value - low)], [1e3 * (high - latency.value)]],
                markersize=7,
                elinewidth=1.0,
                capsize=2,
                **style.point(number),
            )
        axes.set_xlabel("median end to end [ms], 95 % interval")
        axes.set_ylabel("accuracy [%] ± s.e.")
        axes.margins(x=0.12)
        lowest = min(100 * (accuracy - error) for _, accuracy, error in points.values())
        axes.set_ylim(max(0.0, min(lowest - 2, 102 - LEAST_RANGE)), 102)
        style.key(
            figure,
            [
                Line2D([], [], label=label, markersize=7, **style.point(number))
                for number, label in enumerate(points)
            ],
        )
    return Drawing(f"{group.slug}-accuracy", "Accuracy against latency", _finding(points), figure)


def _finding(points: dict[str, tuple[analysis.Estimate, float, float]]) -> str:
    best = max(accuracy for _, accuracy, _ in points.values())
    fastest, (latency, accuracy, error) = min(points.items(), key=lambda item: item[1][0].value)
    first, (reference, was, _) = next(iter(points.items()))
    of_best = [label for label, (_, value, _) in points.items() if value == best]
    text = (
        f"{fastest} is fastest, {ms(latency.value)} ms in the median at an accuracy of "
        f"{100 * accuracy:.1f} ± {100 * error:.1f} %"
    )
    if fastest != first:
        text += f" ({first}: {ms(reference.value)} ms, {100 * was:.1f} %)"
    return f"{text}. The highest accuracy, {100 * best:.1f} %, is that of {', '.join(of_best)}."
