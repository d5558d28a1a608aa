"""The parts of a request's time, in the report's colours: what one has learnt there holds here."""

from __future__ import annotations

from orchestrator.report.figures.latency import PARTS

# Part as the metrics name it → colour.
COLOURS = {
    field.removesuffix("_s"): colour for fields, colour, _ in PARTS.values() for field in fields
}
