"""Tables of a sweep: a row per policy, a column per prompt set, as in the paper's Table I.

The terminal shows accuracy and latency; `table.md` adds the parts of measured and modelled time,
and the conditions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from orchestrator.results.statistics import Spread
from orchestrator.results.table import NONE, ms, percent
from orchestrator.sweep.plan import REFERENCE
from orchestrator.sweep.summary import CellSummary, Measured, SweepSummary

WIDTH = 100
LEAST_P = 0.001
TEXTS = (
    "Set",
    "Policy",
    "Set\nProfile",
    "Policy\nn",
)  # columns of text; the others are numbers
ACCURACY = "accuracy [%], 95 % interval; change in points, McNemar's p"
LATENCY = "median latency, speed-up; cut [%]; its 95 % interval"
BREAKDOWN = (
    "from the models to what is measured: medians [ms]; ratios by request: median (p10 – p90)"
)
BREAKDOWN_COLUMNS = (
    "Set",
    "Policy",
    "Experts a token",
    "Eq. 8",
    "Batched",
    "Devices",
    "Trunk",
    "Gate, selection",
    "Combine, overhead",
    "Queue, HTTP",
    "End to end",
    "Devices / batched",
    "End to end / Eq. 8",
)


@dataclass(frozen=True)
class Grid:
    """A table independent of its output format; a cell may have several lines."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]

    def rich(self) -> Table:
        """Return the table for the terminal."""
        table = Table(title=self.title, title_justify="left", box=box.SIMPLE_HEAD, show_edge=False)
        for column in self.columns:
            words = column in TEXTS
            table.add_column(column, justify="left" if words else "right", overflow="fold")
        for row in self.rows:
            table.add_row(*map(Text, row))
        return table

    def markdown(self) -> str:
        """Return the table as Markdown."""
        rule = ["---" if column in TEXTS else "---:" for column in self.columns]
        lines = [self.columns, rule, *self.rows]
        body = "\n".join(f"| {' | '.join(cells)} |".replace("\n", "<br>") for cells in lines)
        return f"**{self.title}**\n\n{body}\n"


def render(summary: SweepSummary) -> Group:
    """Return accuracy and latency for each profile, below the warnings."""
    grids = [grid for name in profiles(summary) for grid in results(summary, name)]
    warnings = [Text(f"Warning: {line}", style="yellow") for line in _warnings(summary)]
    return Group(*warnings, *(grid.rich() for grid in grids))


def markdown(summary: SweepSummary) -> str:
    """Return the content of table.md."""
    pieces = [*(f"Warning: {line}\n" for line in _warnings(summary))]
    for name in profiles(summary):
        grids = [*results(summary, name), breakdown(summary, name)]
        pieces += [f"## {name}\n", *(grid.markdown() for grid in grids)]
    return "\n".join([*pieces, "## Conditions\n", _conditions(summary)])


def profiles(summary: SweepSummary) -> list[str]:
    """Return the names of the profiles of a sweep, in their order."""
    return [profile.name for profile in summary.asked.profiles]


def heading(summary: SweepSummary, profile: str) -> str:
    """Return a profile's name, marked if its numbers are of one realisation of the fading.

    No confidence interval covers other realisations.
    """
    fading = summary.fading.get(profile)
    return f"{profile}, {fading.label}" if fading and fading.one_realisation else profile


def results(summary: SweepSummary, profile: str) -> list[Grid]:
    """Return accuracy and latency under one profile."""
    return [
        _grid(summary, profile, ACCURACY, _accuracy),
        _grid(summary, profile, LATENCY, _latency),
    ]


def _grid(
    summary: SweepSummary, profile: str, title: str, show: Callable[[CellSummary], str]
) -> Grid:
    cells = {(cell.label, cell.prompts): cell for cell in summary.cells if cell.profile == profile}
    sets = [prompts.name for prompts in summary.asked.sets]
    labels = [policy.label for policy in summary.asked.policies]
    rows = [[label, *(show(cells[label, name]) for name in sets)] for label in labels]
    return Grid(f"{heading(summary, profile)}: {title}", ["Policy", *sets], rows)


def _accuracy(cell: CellSummary) -> str:
    text = percent(cell.accuracy, cell.accuracy_interval)
    if cell.compared is None or cell.label == REFERENCE:
        return text
    change, p = cell.compared.accuracy_change, cell.compared.mcnemar_p
    if change is None or p is None:
        return text
    chance = f"p {p:.2g}" if p >= LEAST_P else f"p < {LEAST_P:g}"
    return f"{text}\n{100 * change:+.1f}, {chance}".replace("-", "−")


def _latency(cell: CellSummary) -> str:
    if cell.measured is None:
        return NONE
    text = f"{ms(cell.measured.latency.value)} ms"
    if cell.compared is None or cell.label == REFERENCE:
        return text
    cut = cell.compared.cut
    text += f", {cell.compared.speedup:.2f}×\n{100 * cut.value:.1f}"
    if cut.low is not None and cut.high is not None:
        text += f"\n[{100 * cut.low:.1f}, {100 * cut.high:.1f}]"
    return text.replace("-", "−")


def breakdown(summary: SweepSummary, profile: str) -> Grid:
    """Return the parts of measured and modelled time under one profile."""
    rows = [
        [cell.prompts, cell.label, *_times(cell.measured)]
        for cell in summary.cells
        if cell.profile == profile and cell.measured is not None
    ]
    return Grid(f"{heading(summary, profile)}: {BREAKDOWN}", BREAKDOWN_COLUMNS, rows)


def _times(measured: Measured) -> list[str]:
    part = measured.parts_p50_s
    return [
        NONE if measured.experts_per_token is None else f"{measured.experts_per_token:.2f}",
        ms(measured.eq8_p50_s),
        ms(measured.batched_p50_s),
        ms(measured.devices_p50_s),
        ms(part["trunk_s"]),
        ms(part["gate_s"] + part["selection_s"]),
        ms(part["combine_s"] + part["overhead_s"]),
        ms(part["queue_s"] + part["http_s"]),
        ms(measured.latency.value),
        _spread(measured.devices_ratio),
        _spread(measured.ratio),
    ]


def _conditions(summary: SweepSummary) -> str:
    sets = [f"{prompts.name} {prompts.items}" for prompts in summary.asked.sets]
    seeds = [
        f"{profile.name} {summary.seeds[profile.name]} (sha256 {profile.sha256[:12]})"
        for profile in summary.asked.profiles
    ]
    fading = [
        f"{name} {'none' if begun is None else begun.label}"
        for name, begun in summary.fading.items()
    ]
    backends = sorted({backend for cell in summary.cells for backend in cell.backends})
    curve = "on" if summary.curve else "off"
    lines = [
        f"prompts a policy: {', '.join(sets)}",
        f"seeds of profiles: {', '.join(seeds)}",
        f"fading: {', '.join(fading) or 'not recorded'}",
        f"links: {' + '.join(backends) or NONE}, kernel {summary.kernel}",
        f"model: {summary.model}, {summary.wire_dtype} on the wire, CURVE {curve}",
        f"code: {summary.git_revision or 'no checkout'}; "
        + ", ".join(f"{name} {number}" for name, number in summary.versions.items()),
        f"started: {summary.asked.started_at}",
        summary.method,
    ]
    return "".join(f"- {line}\n" for line in lines)


def _warnings(summary: SweepSummary) -> list[str]:
    return [
        f"{cell.profile}, {cell.prompts}, {cell.label}: {line}"
        for cell in summary.cells
        for line in cell.warnings
    ]


def _spread(spread: Spread | None) -> str:
    return NONE if spread is None else f"{spread.p50:.2f} ({spread.p10:.2f} – {spread.p90:.2f})"
