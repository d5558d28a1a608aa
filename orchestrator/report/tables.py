"""Tables of a report page with the numbers of a group of runs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from orchestrator.contracts.verification import Verification
from orchestrator.report.figures.devices import FATES, tokens
from orchestrator.report.figures.latency import PARTS
from orchestrator.report.groups import Group
from orchestrator.report.rates import over_time
from orchestrator.results.summary import Summary
from orchestrator.results.table import NONE, ms, percent
from orchestrator.sweep.tables import TEXTS, Grid

_PERCENTILE = re.compile(r"p(\d+)_s")


@dataclass(frozen=True)
class Table:
    """A table of a page; the first `heads` cells of a row are its headings, the rest numbers."""

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    heads: int = 1


def of_grid(grid: Grid) -> Table:
    """Convert a table of a sweep."""
    heads = sum(column in TEXTS for column in grid.columns)
    return Table(grid.title, grid.columns, grid.rows, heads)


def accuracy(group: Group) -> Table:
    """Return scores and throughput; columns without any value are omitted."""
    rows = {label: _scores(run.summary) for label, run in group.runs.items()}
    columns = list(dict.fromkeys(name for row in rows.values() for name in row))
    return Table(
        "Accuracy and throughput",
        ["Policy", *columns],
        [[label, *(row.get(name, NONE) for name in columns)] for label, row in rows.items()],
    )


def latency(group: Group) -> Table:
    """Return percentiles of each duration in the summaries, with intervals if present."""
    columns: list[str] = []
    rows = []
    for label, run in group.runs.items():
        for name, value in run.summary.model_dump().items():
            if isinstance(value, dict) and "p95_s" in value:
                found = [key for key in value if _PERCENTILE.fullmatch(key)]
                columns = columns or found
                cells = [str(value["n"]), *(_quantile(value, key) for key in columns)]
                rows.append([label, name.replace("_", " "), *cells])
    heads = ["Policy", "Duration", "n", *(name.removesuffix("_s") for name in columns)]
    return Table(
        "Latency [ms] and 95 % intervals where there are any. First token and end to end count "
        "from the intended start, of answered requests; dispatch delay is how much later than "
        f"intended any request was sent. {NONE}: too few for that percentile",
        heads,
        rows,
        heads=2,
    )


def split(group: Group) -> Table:
    """Return the numbers of the bars of parts, and the models for comparison."""
    rows = []
    for label, run in group.runs.items():
        summary = run.summary
        parts = [_sum(summary, fields) for fields, _, _ in PARTS.values()]
        models = (summary.eq8, summary.batched, summary.eq8_measured)
        ratio = summary.measured_over_batched
        rows.append(
            [
                *(label, *map(ms, parts), *(ms(model.mean_s) for model in models)),
                NONE if ratio is None else f"{ratio:.2f}",
            ]
        )
    return Table(
        "Where the time goes [ms]: mean per request of each part; Eq. 8, the same with a layer's "
        "tokens in run message a device, and its three terms as measured",
        [
            *("Policy", *(name.capitalize() for name in PARTS)),
            *("Eq. 8", "Batched", "As measured", "Links and devices / batched"),
        ],
        rows,
    )


def devices(group: Group) -> Table:
    """Return link rates, and the outcome of the tokens that the gate assigned to each device."""
    rates = over_time(list(group.runs.values()))
    counts = {
        f"{label}: {words}": tokens(run, fate)
        for label, run in group.runs.items()
        for fate, (words, _, _) in FATES.items()
    }
    counts = {name: count for name, count in counts.items() if count}
    numbers = {q for count in counts.values() for q in count}
    if rates is not None:
        numbers |= set(range(rates.mbps.shape[1]))
    rows = []
    for q in sorted(numbers):
        links = (
            [NONE, NONE]
            if rates is None or q >= rates.mbps.shape[1]
            else [_rate(rates.mbps[:, q, place]) for place in (0, 1)]
        )
        rows.append([str(q), *links, *(str(count[q]) for count in counts.values())])
    return Table(
        "By device: link rates [Mbit/s], median and, where they change, 10th to 90th percentile of "
        "intervals; tokens over all layers and requests",
        ["Device", "Downlink", "Uplink", *counts],
        rows,
    )


def links(verification: Verification) -> Table:
    """Return the error of each link by message size."""
    sizes = sorted({series.size_bytes for series in verification.series})
    errors = {
        (series.device, series.direction, series.size_bytes): series.error
        for series in verification.series
    }
    ends = dict.fromkeys((series.device, series.direction) for series in verification.series)
    return Table(
        f"Links verified {verification.verified_at} under {verification.profile} "
        f"({' + '.join(verification.backends)}): error of the transmission time [%], measured "
        "against configured, by message size",
        ["Device", "Direction", *(f"{size:,} bytes" for size in sizes)],
        [[str(q), end, *(_error(errors.get((q, end, size))) for size in sizes)] for q, end in ends],
        heads=2,
    )


def _scores(summary: Summary) -> dict[str, str]:
    values: dict[str, Any] = summary.model_dump()
    row = {"Requests": str(summary.n), "Failed": str(summary.errors)}
    for field, name in (("accuracy", "Accuracy"), ("accuracy_norm", "Accuracy, normalised")):
        if values.get(field) is not None:
            row[f"{name} [%], 95 %"] = percent(values[field], values[f"{field}_interval"], sep="\n")
    for field, name in (("tokens_per_s", "Tokens/s"), ("requests_per_s", "Requests/s")):
        if values.get(field) is not None:
            row[name] = f"{values[field]:.3g}"
    goodput = values.get("goodput")
    if goodput is not None:
        row[f"Within {goodput['limit_s']:g} s [%]"] = f"{100 * goodput['share']:.1f}"
    return row


def _quantile(value: dict[str, Any], key: str) -> str:
    interval = value.get(key.replace("_s", "_interval_s"))
    text = ms(value[key])
    return text if interval is None else f"{text}\n[{ms(interval[0])}, {ms(interval[1])}]"


def _sum(summary: Summary, fields: Sequence[str]) -> float | None:
    known = [mean for field in fields if (mean := summary.split[field].mean_s) is not None]
    return sum(known) if known else None


def _rate(mbps: np.ndarray[Any, np.dtype[np.float64]]) -> str:
    if np.isnan(mbps).all():
        return "not limited"
    p10, p50, p90 = np.nanpercentile(mbps, [10, 50, 90])
    return f"{p50:.3g}" if p10 == p90 else f"{p50:.3g} ({p10:.3g} – {p90:.3g})"


def _error(error: float | None) -> str:
    return NONE if error is None else f"{100 * error:+.1f}".replace("-", "−")
