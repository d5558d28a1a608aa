"""The same prompts under several profiles or policies, in one table: what got slower, and where."""

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
    """A line a run, those of the same prompts together; the first of them is what others have."""
    first: dict[tuple[str, str], Summary] = {}
    for one in runs:
        first.setdefault(_prompts(one), one.summary)
    rows = [
        [*_cells(one.summary), _against(first[key], one.summary)]
        for key in first
        for one in runs
        if _prompts(one) == key
    ]
    return Grid(TITLE, COLUMNS, rows)


def _prompts(one: Recorded) -> tuple[str, str]:
    return one.run.prompts.name, one.run.prompts.sha256


def _cells(summary: Summary) -> list[str]:
    times = (summary.time_to_first_token, summary.end_to_end)
    answered = summary.n - summary.errors
    count = str(summary.n) if answered == summary.n else f"{answered} of {summary.n}"
    return [
        f"{summary.prompts}\n{channel(summary)}",
        f"{summary.policy.label}\n{count}",
        accuracy(summary),
        *(f"{ms(each.p50_s)}\n{ms(each.p95_s)}" for each in times),
        *map(ms, _split(summary).values()),
    ]


def _split(summary: Summary) -> dict[str, float | None]:
    """The parts of a request's mean time that radio and devices took [s], and the rest."""
    parts = {part.removesuffix("_s"): summary.split[part].mean_s for part in SHOWN_PARTS}
    whole = summary.end_to_end.mean_s
    known = sum(value or 0.0 for value in parts.values())
    return {**parts, "rest": None if whole is None else whole - known}


def _against(first: Summary, other: Summary) -> str:
    """`6.00×` and `+1608 uplink`: how much longer it takes, and which part changed most."""
    was, now = first.end_to_end.p50_s, other.end_to_end.p50_s
    if other is first or not was or now is None:
        return NONE
    before, after = _split(first), _split(other)
    changes = {name: (after[name] or 0.0) - (before[name] or 0.0) for name in before}
    name, change = max(changes.items(), key=lambda item: abs(item[1]))
    sign = "+" if change >= 0 else "−"
    return f"{now / was:.2f}×\n{sign}{ms(abs(change))} {name}"
