"""The results of a sweep: summary.json, table.md, and a figure for each profile."""

from __future__ import annotations

from orchestrator.files import json_file
from orchestrator.sweep import figure, tables
from orchestrator.sweep.plan import Plan, SweepRecord
from orchestrator.sweep.summary import SweepSummary, summarise

SUMMARY, TABLE = "summary.json", "table.md"


def write(plan: Plan, record: SweepRecord) -> SweepSummary:
    """Summarise a complete sweep, and write the results into its folder."""
    summary = summarise(plan, record)
    json_file.write(plan.path / SUMMARY, summary)
    (plan.path / TABLE).write_text(tables.markdown(summary), encoding="utf-8")
    for profile in plan.profiles:
        cells = [cell for cell in summary.cells if cell.profile == profile.name]
        figure.draw(cells, tables.heading(summary, profile.name), plan.path / profile.name)
    return summary
