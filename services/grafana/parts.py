"""The parts of a request's time, in the same colours as in the report."""

from __future__ import annotations

from orchestrator.report.figures.latency import PARTS

# Name of the part in the metrics → colour.
COLOURS = {
    field.removesuffix("_s"): colour for fields, colour, _ in PARTS.values() for field in fields
}
