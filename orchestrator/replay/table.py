"""The terminal's view of runs: one table, two lines a run, at most WIDTH columns wide."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from orchestrator.replay.summary import Summary

WIDTH = 100
NONE = "–"
CAPTION = (
    "Times in ms, end to end (E2E) at the client; its split: mean per request, share of the mean."
)
HEADERS = (
    "n\nfailed",
    "Accuracy\n± s.e.",
    "TTFT p50\np95",
    "E2E p50\np95",
    "Downlink\nshare",
    "Compute\nshare",
    "Uplink\nshare",
    "Rest\nshare",
)
SHOWN_PARTS = ("downlink_s", "compute_s", "uplink_s")


def render(summaries: Sequence[Summary]) -> Group:
    """A table with a row a run; what makes a run's numbers doubtful stands above it."""
    table = Table(
        box=box.SIMPLE_HEAD,
        show_edge=False,
        padding=(0, 1, 0, 0),
        caption=CAPTION,
        caption_justify="left",
    )
    table.add_column("Set\nProfile", min_width=13, overflow="fold")
    table.add_column("Policy\nBackend", min_width=9, overflow="fold")
    for header in HEADERS:
        table.add_column(header, justify="right", no_wrap=True)
    for summary in summaries:
        table.add_row(*map(Text, _cells(summary)))
    warnings = [
        Text(f"Warning: {item.prompts}, {item.profile}: {line}", style="yellow")
        for item in summaries
        for line in item.warnings
    ]
    return Group(*warnings, table)


def _cells(summary: Summary) -> list[str]:
    first, total = summary.time_to_first_token, summary.end_to_end
    mean_s = summary.end_to_end.mean_s
    split = [summary.split[part].mean_s for part in SHOWN_PARTS]
    rest = None if mean_s is None else mean_s - sum(part or 0.0 for part in split)
    return [
        f"{summary.prompts}\n{summary.profile}",
        f"{summary.policy.label}\n{' + '.join(summary.backends) or NONE}",
        f"{summary.n}\n{summary.errors}",
        f"{_percent(summary.accuracy)}\n± {_percent(summary.accuracy_standard_error)}",
        f"{_ms(first.p50_s)}\n{_ms(first.p95_s)}",
        f"{_ms(total.p50_s)}\n{_ms(total.p95_s)}",
        *(f"{_ms(part)}\n{_share(part, mean_s)}" for part in [*split, rest]),
    ]


def _ms(seconds: float | None) -> str:
    if seconds is None:
        return NONE
    milliseconds = seconds * 1e3
    return f"{milliseconds:.1f}" if abs(milliseconds) < 100 else f"{milliseconds:.0f}"


def _percent(value: float | None) -> str:
    return NONE if value is None else f"{value * 100:.1f} %"


def _share(part: float | None, whole: float | None) -> str:
    return NONE if part is None or not whole else f"{part / whole * 100:.0f} %"
