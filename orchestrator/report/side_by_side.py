"""One table of the same prompts under several profiles or policies: which part got slower."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.report.load import Recorded
from orchestrator.results.summary import Summary
from orchestrator.results.table import NONE, SHOWN_PARTS, accuracy, channel, ms
from orchestrator.sweep.tables import Grid

TITLE = (
    "Side by side: times in ms; the split is the mean per request; against: a set's first run, "
    "by the median"
)
WIDTH = 120
COLUMNS = (
    *("Set\nProfile", "Policy\nn", "Accuracy\n%, 95 %", "TTFT\np50, p95", "End to end\np50, p95"),
    *("Downlink", "Compute", "Uplink", "Rest", "Against\nthe first"),
)


def side_by_side(runs: Sequence[Recorded]) -> Grid:
    """Return a row per run, grouped by prompts; the first of a group is the baseline."""
    first: dict[tuple[str, str], Summary] = {}
    for run in runs:
        first.setdefault(_prompts(run), run.summary)
    rows = [
        [*_cells(run.summary), _against(first[key], run.summary)]
        for key in first
        for run in runs
        if _prompts(run) == key
    ]
    return Grid(TITLE, COLUMNS, rows)


def _prompts(run: Recorded) -> tuple[str, str]:
    return run.run.prompts.name, run.run.prompts.sha256


def _cells(summary: Summary) -> list[str]:
    times = (summary.time_to_first_token, summary.end_to_end)
    answered = summary.n - summary.errors
    count = str(summary.n) if answered == summary.n else f"{answered} of {summary.n}"
    return [
        f"{summary.prompts}\n{channel(summary)}",
        f"{summary.policy.label}\n{count}",
        accuracy(summary),
        *(f"{ms(time.p50_s)}\n{ms(time.p95_s)}" for time in times),
        *map(ms, _split(summary).values()),
    ]


def _split(summary: Summary) -> dict[str, float | None]:
    """Return the parts of a request's mean time at radio and devices [s], and the rest."""
    parts = {part.removesuffix("_s"): summary.split[part].mean_s for part in SHOWN_PARTS}
    whole = summary.end_to_end.mean_s
    known = sum(value or 0.0 for value in parts.values())
    return {**parts, "rest": None if whole is None else whole - known}


def _against(first: Summary, other: Summary) -> str:
    """Return the ratio of medians and the part that changed most: `6.00×`, `+1608 uplink`."""
    was, now = first.end_to_end.p50_s, other.end_to_end.p50_s
    if other is first or not was or now is None:
        return NONE
    before, after = _split(first), _split(other)
    changes = {name: (after[name] or 0.0) - (before[name] or 0.0) for name in before}
    name, change = max(changes.items(), key=lambda item: abs(item[1]))
    sign = "+" if change >= 0 else "−"
    return f"{now / was:.2f}×\n{sign}{ms(abs(change))} {name}"
