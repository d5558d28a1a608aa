"""Link rates over time, above the end-to-end times of the requests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from scipy import stats

from orchestrator.radio.plot import asks_for_log
from orchestrator.report.figures import resample, style
from orchestrator.report.figures.drawing import Drawing
from orchestrator.report.groups import Group
from orchestrator.report.rates import COMPUTED, Rates, over_time
from orchestrator.results.schema import Request
from orchestrator.results.table import ms

LEAST_PAIRS = 10  # with fewer requests a correlation is meaningless
_OUTAGE: dict[str, Any] = {
    "facecolor": style.PAGE,
    "edgecolor": style.VERMILION,
    "hatch": "xxxx",
    "linewidth": 0,
}
Runs = dict[str, Sequence[Request]]


def draw(group: Group) -> list[Drawing]:
    """Draw a figure for each folder given: its runs share one time axis."""
    drawings = []
    folders = list(dict.fromkeys(run.given for run in group.runs.values()))
    for number, folder in enumerate(folders):
        found = {label: run for label, run in group.runs.items() if run.given == folder}
        requests: Runs = {label: run.requests for label, run in found.items() if run.requests}
        if not requests:
            continue
        rates = over_time(list(found.values()))
        changing = rates if rates is not None and rates.lasts_s is not None else None
        suffix = f"-{number + 1}" if number else ""
        drawings.append(
            Drawing(
                f"{group.slug}-timeline{suffix}",
                "Link rates and end-to-end times"
                + (f", {folder.resolve().name}" if len(folders) > 1 else ""),
                _finding(rates, requests),
                _figure(changing, requests),
            )
        )
    return drawings


def _figure(rates: Rates | None, requests: Runs) -> Figure:
    starts = [request.intended_start_s for found in requests.values() for request in found]
    ends = [
        request.intended_start_s + request.end_to_end_s
        for found in requests.values()
        for request in found
    ]
    begin_s = min(starts)
    with style.applied():
        figure = style.figure(2.9 if rates is None else 5.2)
        if rates is None:
            axes = figure.add_subplot()
        else:
            down, up, axes = figure.subplots(3, sharex=True, height_ratios=[1, 1, 1.4])
            _draw_rates(figure, (down, up), rates, begin_s)
        for number, (label, found) in enumerate(requests.items()):
            answered = [request for request in found if request.error is None]
            axes.plot(
                [request.intended_start_s - begin_s for request in answered],
                [1e3 * request.end_to_end_s for request in answered],
                markersize=3.5,
                label=label,
                **style.point(number),
            )
        failed = [
            request.intended_start_s - begin_s
            for f in requests.values()
            for request in f
            if request.error
        ]
        if failed:
            top = axes.get_xaxis_transform()
            axes.plot(
                failed, [0.97] * len(failed), "x", color=style.INK, transform=top, label="failed"
            )
        axes.set_xlim(0, max(ends) - begin_s)
        axes.set_ylim(bottom=0)
        axes.set_xlabel("intended start [s]")
        axes.set_ylabel("end to end [ms]")
        out = rates is not None and bool((rates.mbps == 0).any())
        style.key(figure, [*axes.get_lines(), *([Patch(label="outage", **_OUTAGE)] if out else [])])
    return figure


def _draw_rates(figure: Figure, panels: tuple[Axes, Axes], rates: Rates, begin_s: float) -> None:
    """Draw a row per device, darker where slower; crosses mark outages, blanks unknown rates."""
    edges, shown = resample.columns(rates)
    limited = rates.mbps[rates.mbps > 0]
    low, high = np.percentile(limited, [1, 99]) if len(limited) else (0.0, 1.0)
    norm = LogNorm(low, high) if asks_for_log(rates.mbps) else Normalize(0, high)
    devices = rates.mbps.shape[1]
    for place, (axes, name) in enumerate(zip(panels, ("downlink", "uplink"), strict=True)):
        values = shown[:, :, place].T
        drawn = axes.pcolormesh(
            edges - begin_s,
            np.arange(devices + 1) - 0.5,
            np.ma.masked_where(~(values > 0), values),
            norm=norm,
            cmap="cividis",
            rasterized=True,
        )
        axes.set_title(f"{name} rate by device; darker is slower", pad=3)
        axes.set_ylim(devices - 0.5, -0.5)
        axes.set_ylabel("device")
        axes.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=5))
        axes.grid(visible=False)
        for device, row in enumerate(values):
            out = [(edges[i] - begin_s, edges[i + 1] - edges[i]) for i in np.flatnonzero(row == 0)]
            axes.broken_barh(out, (device - 0.5, 1), **_OUTAGE)
    bar = figure.colorbar(drawn, ax=panels, label="Mbit/s", extend="both", aspect=30, pad=0.02)
    bar.outline.set_visible(False)


def _finding(rates: Rates | None, requests: Runs) -> str:
    answered = [
        request for found in requests.values() for request in found if request.error is None
    ]
    if rates is None:
        return f"The links' rates are not known from the record. {_drift(answered)}"
    limited = rates.mbps[rates.mbps > 0]
    if not len(limited):
        return f"No link's rate is limited. {_drift(answered)}"
    span = f"{limited.min():.3g} to {limited.max():.3g} Mbit/s"
    out = (rates.mbps == 0).any(axis=2)
    if rates.lasts_s is None:
        away = [f"; device {q} was out of reach" for q in np.flatnonzero(out[0])]
        return f"Every link kept its rate, {span}{''.join(away)}. {_drift(answered)}"
    text = f"Link rates went from {span}"
    text += (
        f"; devices were in outage {100 * out.mean():.1f} % of the time. " if out.any() else ". "
    )
    return text + _correlation(rates, requests)


def _drift(answered: Sequence[Request]) -> str:
    if len(answered) < 2:
        return ""
    ordered = [
        request.end_to_end_s
        for request in sorted(answered, key=lambda request: request.intended_start_s)
    ]
    half = len(ordered) // 2
    before, after = float(np.median(ordered[:half])), float(np.median(ordered[half:]))
    return (
        f"The median end to end was {ms(before)} ms in the first half of the requests and "
        f"{ms(after)} ms in the second."
    )


def _correlation(rates: Rates, requests: Runs) -> str:
    """Describe how the time of a request correlates with its slowest link."""
    if rates.every > 1:
        return (
            f"Of more than {COMPUTED:,} intervals, one in {rates.every} was computed: too few to "
            "correlate rates and times."
        )
    findings = []
    for label, found in requests.items():
        answered = [request for request in found if request.error is None]
        slowest = [
            rates.least_mbps(
                request.actual_start_s, request.intended_start_s + request.end_to_end_s
            )
            for request in answered
        ]
        times = [request.end_to_end_s for request in answered]
        if len(answered) >= LEAST_PAIRS and len(set(slowest)) > 1 and len(set(times)) > 1:
            rho = float(stats.spearmanr(slowest, times).statistic)
            findings.append(f"{label} {f'{rho:+.2f}'.replace('-', '−')} (n = {len(answered)})")
    if not findings:
        return "Too few requests to correlate rates and times."
    return (
        "Rank correlation (Spearman) of a request's end to end with the slowest link's rate in its "
        f"time: {', '.join(findings)}."
    )
