"""The terminal's view of runs, at most WIDTH columns wide.

A table of latencies and their parts, two lines per run; then each run's times and load.
"""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from orchestrator.results.distribution import Distribution, Interval
from orchestrator.results.summary import Summary

WIDTH = 100
NONE = "–"
CAPTION = (
    "Times in ms, end to end (E2E) at the client; its split: mean per request, share of the mean."
)
HEADERS = (
    "n\nfailed",
    "Accuracy\n%, 95 %",
    "TTFT p50\np95",
    "E2E p50\np95",
    "Downlink\nshare",
    "Compute\nshare",
    "Uplink\nshare",
    "Rest\nshare",
)
SHOWN_PARTS = ("downlink_s", "compute_s", "uplink_s")


def render(summaries: Sequence[Summary]) -> Group:
    """Return a table with a row per run; its warnings stand above it."""
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
    gap = Text()
    details = [part for item in summaries for part in (gap, _times(item), gap, _load(item))]
    return Group(*warnings, table, *details)


def ms(seconds: float | None) -> str:
    """Return a duration in milliseconds, with a decimal below 100."""
    if seconds is None:
        return NONE
    milliseconds = seconds * 1e3
    return f"{milliseconds:.1f}" if abs(milliseconds) < 100 else f"{milliseconds:.0f}"


def channel(summary: Summary, sep: str = "\n") -> str:
    """Return the profile, with a note if the run met a single realisation of it."""
    fading = summary.fading
    alone = [fading.label] if fading is not None and fading.one_realisation else []
    return sep.join([summary.profile, *alone])


def percent(value: float | None, interval: Interval | None, sep: str = " ") -> str:
    """Return a share and its interval in per cent: `98.3 [91.1, 99.7]`."""
    if value is None or interval is None:
        return NONE
    return f"{100 * value:.1f}{sep}[{100 * interval[0]:.1f}, {100 * interval[1]:.1f}]"


def accuracy(summary: Summary) -> str:
    """Return the accuracy and, on a second line, its interval, both in per cent."""
    value, interval = summary.accuracy, summary.accuracy_interval
    if value is None or interval is None:
        return NONE
    return f"{100 * value:.1f}\n{100 * interval[0]:.3g}–{100 * interval[1]:.3g}"


def _times(summary: Summary) -> Table:
    """Return a table of means and percentiles, each above its interval."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    table.add_column("Times in ms\n[95 %]", no_wrap=True)
    for header in ("n", "mean", "p50", "p90", "p95", "p99"):
        table.add_column(header, justify="right", no_wrap=True)
    for name, times in (
        ("End to end", summary.end_to_end),
        ("To first token", summary.time_to_first_token),
        ("Per output token", summary.time_per_output_token),
        ("Dispatch delay", summary.dispatch_delay),
    ):
        if not times.n:
            continue
        mean = p50 = p95 = ""
        if isinstance(times, Distribution):
            mean, p50 = _interval(times.mean_interval_s), _interval(times.p50_interval_s)
            p95 = _interval(times.p95_interval_s)
        table.add_row(
            name,
            str(times.n),
            ms(times.mean_s) + mean,
            ms(times.p50_s) + p50,
            ms(times.p90_s),
            ms(times.p95_s) + p95,
            ms(times.p99_s),
        )
    return table


def _load(summary: Summary) -> Text:
    """Return how requests arrived, how many were answered, and how many in time."""
    lines = [f"Arrivals: {_arrivals(summary)}; in flight: {_in_flight(summary)}"]
    if summary.backoff is not None:
        held = summary.backoff
        lines.append(
            f"Base station full: {held.requests} requests held back for {held.mean_s:.3g} s on "
            f"average, {held.most_s:.3g} s at most; {held.retries} retries"
        )
    if summary.fading is not None:
        uncovered = ", which no interval covers" if summary.fading.one_realisation else ""
        lines.append(f"Fading: {summary.fading.label}{uncovered}")
    if summary.requests_per_s is not None and summary.tokens_per_s is not None:
        rates = f"{summary.requests_per_s:.3g} requests/s, {summary.tokens_per_s:.3g} tokens/s"
        lines.append(f"Answered: {rates}")
    if summary.measured_over_batched is not None:
        ratio = summary.measured_over_batched
        lines.append(f"Links and devices took {ratio:.2f} × the batched model's time")
    if summary.goodput is not None:
        good = summary.goodput
        per_s = "" if good.per_s is None else f", {good.per_s:.3g} requests/s"
        lines.append(f"Within {good.limit_s:g} s: {good.n} of {summary.n}{per_s}")
    if summary.too_long:
        lines.append(
            f"Accuracy is over {summary.scored} of {summary.n} prompts; {summary.too_long} are too "
            "long for the model's context"
        )
    if summary.accuracy_norm is not None:
        shown = percent(summary.accuracy_norm, summary.accuracy_norm_interval)
        lines.append(f"Accuracy by normalised likelihood, %: {shown}")
    return Text("\n".join(lines))


def _arrivals(summary: Summary) -> str:
    arrivals = summary.arrivals
    text = str(arrivals.kind)
    if arrivals.rate_per_s is not None:
        text += f", {arrivals.rate_per_s / arrivals.time_scale:.3g} requests/s"
    if arrivals.burstiness is not None:
        text += f", burstiness {arrivals.burstiness:g}"
    if arrivals.concurrency is not None:
        text += f", {arrivals.concurrency} at a time"
    return text + (f", after {summary.warmup} to warm up" if summary.warmup else "")


def _in_flight(summary: Summary) -> str:
    most = f"{summary.in_flight.most} at most"
    mean = summary.in_flight.mean
    return most if mean is None else f"{mean:.3g} on average, {most}"


def _interval(interval: Interval | None) -> str:
    return "" if interval is None else f"\n[{ms(interval[0])}, {ms(interval[1])}]"


def _cells(summary: Summary) -> list[str]:
    first, total = summary.time_to_first_token, summary.end_to_end
    mean_s = summary.end_to_end.mean_s
    split = [summary.split[part].mean_s for part in SHOWN_PARTS]
    rest = None if mean_s is None else mean_s - sum(part or 0.0 for part in split)
    return [
        f"{summary.prompts}\n{channel(summary)}",
        f"{summary.policy.label}\n{' + '.join(summary.backends) or NONE}",
        f"{summary.n}\n{summary.errors}",
        accuracy(summary),
        f"{ms(first.p50_s)}\n{ms(first.p95_s)}",
        f"{ms(total.p50_s)}\n{ms(total.p95_s)}",
        *(f"{ms(part)}\n{_share(part, mean_s)}" for part in [*split, rest]),
    ]


def _share(part: float | None, whole: float | None) -> str:
    return NONE if part is None or not whole else f"{part / whole * 100:.0f} %"
