"""Latency of requests: its distribution, its parts, and its models."""

from __future__ import annotations

import numpy as np
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from orchestrator.contracts.time_parts import DEVICE_PARTS
from orchestrator.report.figures import style
from orchestrator.report.figures.drawing import Drawing
from orchestrator.report.groups import Group
from orchestrator.report.load import Recorded
from orchestrator.results.table import ms

# Parts of the end-to-end time in the order of the bars: those of the paper's model, then the rest.
PARTS: dict[str, tuple[tuple[str, ...], str, str]] = {
    "downlink": (("downlink_s",), style.SKY, "//"),
    "wait": (("wait_s",), style.YELLOW, ""),
    "compute": (("compute_s",), style.GREEN, ""),
    "uplink": (("uplink_s",), style.BLUE, "\\\\"),
    "trunk": (("trunk_s",), style.ORANGE, ""),
    "gate, selection": (("gate_s", "selection_s"), style.VERMILION, ".."),
    "combine, overhead": (("combine_s", "overhead_s"), style.PURPLE, "xx"),
    "queue, HTTP": (("queue_s", "backoff_s", "http_s"), style.GREY, "--"),
}


def distribution(group: Group) -> Drawing | None:
    """Draw the cumulative distribution of end-to-end times; None if no request was answered."""
    times = {
        label: np.sort([request.end_to_end_s for request, _ in one.answered])
        for label, one in group.runs.items()
        if one.answered
    }
    if not times:
        return None
    with style.applied():
        figure = style.figure(3.2)
        axes = figure.add_subplot()
        for number, (label, ordered) in enumerate(times.items()):
            share = np.arange(len(ordered) + 1) / len(ordered)
            axes.step(
                1e3 * np.append(ordered[:1], ordered),
                100 * share,
                where="post",
                label=label,
                **style.line(number),
            )
        axes.set_xlabel("end to end, at most [ms]")
        axes.set_ylabel("share of answered requests [%]")
        axes.set_ylim(0, 101)
        style.key(figure, axes.get_lines())
    return Drawing(f"{group.slug}-cdf", "Distribution of end-to-end times", _spread(group), figure)


def split(group: Group) -> Drawing | None:
    """Draw the parts of the mean time, a bar per run; None if no request was answered."""
    runs = {label: one for label, one in group.runs.items() if one.answered}
    if not runs:
        return None
    with style.applied():
        figure = style.figure(1.6 + 0.42 * len(runs))
        axes = figure.add_subplot()
        left = np.zeros(len(runs))
        for fields, colour, hatch in PARTS.values():
            width = np.array([1e3 * _mean(one, fields) for one in runs.values()])
            axes.barh(
                range(len(runs)),
                width,
                left=left,
                height=0.7,
                **style.filling(colour, hatch),
            )
            left += width
        axes.set_yticks(range(len(runs)), [style.short(label) for label in runs])
        axes.invert_yaxis()
        axes.grid(visible=False, axis="y")
        axes.set_xlabel("mean per request [ms]")
        style.key(
            figure,
            [
                Patch(label=name, **style.filling(colour, hatch))
                for name, (_, colour, hatch) in PARTS.items()
            ],
        )
    return Drawing(f"{group.slug}-split", "Where the time goes", _largest(runs), figure)


def modelled(group: Group) -> Drawing | None:
    """Draw medians of Eq. 8, of the batched model, and of the measured times, or None."""
    runs = {label: one for label, one in group.runs.items() if one.answered}
    if not runs:
        return None
    kinds = {
        "Eq. 8": (style.INK, "D"),
        "Eq. 8, batched": (style.ORANGE, "v"),
        "links and devices, measured": (style.BLUE, "o"),
        "end to end, measured": (style.VERMILION, "s"),
    }
    with style.applied():
        figure = style.figure(1.6 + 0.42 * len(runs))
        axes = figure.add_subplot()
        for number, one in enumerate(runs.values()):
            values = [1e3 * value for value in _medians(one)]
            axes.hlines(number, min(values), max(values), color=style.FAINT, linewidth=4)
            for value, (colour, marker) in zip(values, kinds.values(), strict=True):
                axes.plot(value, number, color=colour, marker=marker, markersize=7)
        axes.set_yticks(range(len(runs)), [style.short(label) for label in runs])
        axes.set_ylim(len(runs) - 0.5, -0.5)
        axes.set_xlim(left=0)
        axes.grid(visible=False, axis="y")
        axes.set_xlabel("median [ms]")
        style.key(
            figure,
            [
                Line2D([], [], label=name, color=colour, marker=marker, linestyle="")
                for name, (colour, marker) in kinds.items()
            ],
        )
    first, one = next(iter(runs.items()))
    eq8, batched, devices, total = _medians(one)
    finding = (
        f"{first}: links and devices took {ms(devices)} ms, the whole request {ms(total)} ms; the "
        f"model of the same messages says {ms(batched)} ms, Eq. 8, a request's own tokens one "
        f"after the other, {ms(eq8)} ms (medians)."
    )
    return Drawing(f"{group.slug}-eq8", "The models beside what was measured", finding, figure)


def _medians(one: Recorded) -> tuple[float, float, float, float]:
    rows = [
        (
            timings.eq8_s,
            timings.batched_s,
            sum(getattr(timings, part) for part in DEVICE_PARTS),
            request.end_to_end_s,
        )
        for request, timings in one.answered
    ]
    eq8, batched, devices, total = map(float, np.median(rows, axis=0))
    return eq8, batched, devices, total


def _mean(one: Recorded, fields: tuple[str, ...]) -> float:
    split = one.summary.split
    return sum(split[field].mean_s or 0.0 for field in fields if field in split)


def _spread(group: Group) -> str:
    findings = []
    for label, one in group.runs.items():
        total = one.summary.end_to_end
        if total.p50_s is None:
            continue
        most = "" if total.p95_s is None else f", 95 % within {ms(total.p95_s)} ms"
        findings.append(f"{label} half within {ms(total.p50_s)} ms{most} (n = {total.n})")
    return f"{'; '.join(findings)}."


def _largest(runs: dict[str, Recorded]) -> str:
    findings = []
    for label, one in runs.items():
        parts = {name: _mean(one, fields) for name, (fields, _, _) in PARTS.items()}
        whole = sum(parts.values())
        name, value = max(parts.items(), key=lambda item: item[1])
        findings.append(f"{label} {name}, {100 * value / whole:.0f} % of {ms(whole)} ms")
    return f"The largest part of the mean: {'; '.join(findings)}."
