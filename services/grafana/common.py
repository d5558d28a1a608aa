"""What panels of every kind have: title, description, unit, thresholds, and queries.

Queries are a mapping from legend to PromQL expression; `{{label}}` in a legend is the series'.
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
# A value from which on a colour holds; the first has none.
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
# No value is good or bad in itself.
NEUTRAL: Steps = ((None, "text"),)


def rising(careful: float, bad: float) -> Steps:
    """The more the worse: green, orange from `careful` on, red from `bad` on."""
    return ((None, "green"), (careful, "orange"), (bad, "red"))


def dressed(panel: P, title: str, description: str, unit: str, thresholds: Steps) -> P:
    """A panel with what every one has."""
    steps = [models.Threshold(value=value, color=colour) for value, colour in thresholds]
    panel.title(title).description(description).unit(unit).datasource(PROMETHEUS)
    return panel.thresholds(
        dashboard.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(steps)
    )


def asked(
    panel: P,
    queries: Queries,
    *,
    instant: bool = False,
    shape: PromQueryFormat = PromQueryFormat.TIME_SERIES,
) -> P:
    """A panel with its queries, A, B, C, …; `instant`: of now alone."""
    for place, (legend, expression) in enumerate(queries.items()):
        query = prometheus.Dataquery().ref_id(chr(ord("A") + place)).datasource(PROMETHEUS)
        query.expr(expression).legend_format(legend).format(shape)
        panel.with_target(query.instant() if instant else query.range())
    return panel
