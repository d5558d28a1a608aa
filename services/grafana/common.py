"""The settings common to every kind of panel: title, description, unit, thresholds and queries.

Queries map legends to PromQL expressions; `{{label}}` in a legend is that label of the series.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias, TypeVar

from grafana_foundation_sdk.builders import (
    bargauge,
    dashboard,
    heatmap,
    prometheus,
    stat,
    statetimeline,
    table,
    timeseries,
)
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

Queries: TypeAlias = Mapping[str, str]
# Colours, each with the value from which it holds; the first has none.
Steps: TypeAlias = Sequence[tuple[float | None, str]]
P = TypeVar(
    "P",
    bargauge.Panel,
    heatmap.Panel,
    stat.Panel,
    statetimeline.Panel,
    table.Panel,
    timeseries.Panel,
)

PROMETHEUS = models.DataSourceRef(type_val="prometheus", uid="prometheus")
TOKENS_PER_S = "suffix:tokens/s"
# No value is good or bad by itself.
NEUTRAL: Steps = ((None, "text"),)


def rising(careful: float, bad: float) -> Steps:
    """Return steps for values that should be low: green, orange from `careful`, red from `bad`."""
    return ((None, "green"), (careful, "orange"), (bad, "red"))


def describe(panel: P, title: str, description: str, unit: str, thresholds: Steps) -> P:
    """Set the fields that every panel has, and return the panel."""
    steps = [models.Threshold(value=value, color=colour) for value, colour in thresholds]
    panel.title(title).description(description).unit(unit).datasource(PROMETHEUS)
    return panel.thresholds(
        dashboard.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(steps)
    )


def add_queries(
    panel: P,
    queries: Queries,
    *,
    instant: bool = False,
    shape: PromQueryFormat = PromQueryFormat.TIME_SERIES,
) -> P:
    """Add queries A, B, C, … to a panel and return it; `instant` queries are of now alone."""
    for index, (legend, expression) in enumerate(queries.items()):
        query = prometheus.Dataquery().ref_id(chr(ord("A") + index)).datasource(PROMETHEUS)
        query.expr(expression).legend_format(legend).format(shape)
        panel.with_target(query.instant() if instant else query.range())
    return panel
