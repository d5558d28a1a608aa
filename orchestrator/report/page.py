"""The report: one self-contained page, and its figures as files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from orchestrator.errors import InputError
from orchestrator.report import conditions, tables
from orchestrator.report.figures import accuracy, devices, latency, svg, timeline
from orchestrator.report.figures.drawing import Drawing
from orchestrator.report.groups import Group, group
from orchestrator.report.load import Material
from orchestrator.report.side_by_side import side_by_side
from orchestrator.report.tables import Table
from orchestrator.sweep import tables as sweep_tables
from orchestrator.sweep.tables import Grid

PAGE, TABLE, FIGURES = "index.html", "table.md", "figures"
_HERE = Path(__file__).parent


@dataclass(frozen=True)
class Figure:
    """A figure of the page."""

    name: str
    title: str
    finding: str
    svg: Markup


@dataclass(frozen=True)
class Section:
    """The section of the page on one group of runs."""

    name: str
    slug: str
    tables: Sequence[Table]
    figures: Sequence[Figure]


@dataclass(frozen=True)
class Written:
    """The files that `write` wrote, the table of all runs, and the warnings."""

    page: Path
    runs: Grid
    figures: list[Path]
    warnings: list[str]


def write(material: Material, out: Path) -> Written:
    """Write index.html, table.md and figures into OUT; InputError if they cannot be written."""
    groups = group(material.runs)
    runs = side_by_side(material.runs)
    warnings = conditions.warnings(groups)
    unfinished = [
        f"The sweep in {sweep.path} has not ended: its policies are not compared here."
        for sweep in material.sweeps
        if sweep.summary is None
    ]
    verified = conditions.verifications(material.runs)
    drawn = [(runs_group, _draw(runs_group)) for runs_group in groups]
    try:
        (out / FIGURES).mkdir(parents=True, exist_ok=True)
        for _, drawings in drawn:
            for drawing in drawings:
                svg.save(drawing.figure, out / FIGURES / drawing.name)
        environment = Environment(
            loader=FileSystemLoader(_HERE),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        page = environment.get_template("page.html.j2").render(
            style=Markup((_HERE / "style.css").read_text(encoding="utf-8")),
            warnings=warnings,
            conditions=conditions.conditions(groups),
            overview=tables.of_grid(runs),
            sweeps=_of_sweeps(material),
            unfinished=unfinished,
            links=[tables.links(verification) for verification in verified],
            sections=[_section(runs_group, drawings) for runs_group, drawings in drawn],
            folders=list(dict.fromkeys(run.given.resolve().name for run in material.runs)),
        )
        (out / PAGE).write_text(page, encoding="utf-8")
        (out / TABLE).write_text(runs.markdown(), encoding="utf-8")
    except OSError as error:
        raise InputError(f"{out}: {error.strerror or error}") from None
    files = [
        out / FIGURES / f"{drawing.name}.{kind}"
        for _, drawings in drawn
        for drawing in drawings
        for kind in ("png", "svg")
    ]
    return Written(out / PAGE, runs, files, [*unfinished, *warnings])


def _draw(runs: Group) -> list[Drawing]:
    drawings = [
        accuracy.draw(runs),
        latency.distribution(runs),
        latency.split(runs),
        latency.modelled(runs),
        devices.draw(runs),
        *timeline.draw(runs),
    ]
    return [drawing for drawing in drawings if drawing is not None]


def _section(runs: Group, drawings: Sequence[Drawing]) -> Section:
    figures = [
        Figure(
            drawing.name,
            drawing.title,
            drawing.finding,
            Markup(svg.inline(drawing.figure, drawing.name, f"{drawing.name}-says")),
        )
        for drawing in drawings
    ]
    made = [
        table(runs) for table in (tables.accuracy, tables.latency, tables.split, tables.devices)
    ]
    return Section(runs.name, runs.slug, made, figures)


def _of_sweeps(material: Material) -> list[Table]:
    """Return the tables of sweeps: each policy against the reference."""
    return [
        tables.of_grid(grid)
        for sweep in material.sweeps
        if sweep.summary is not None
        for profile in sweep_tables.profiles(sweep.summary)
        for grid in (
            *sweep_tables.results(sweep.summary, profile),
            sweep_tables.breakdown(sweep.summary, profile),
        )
    ]
