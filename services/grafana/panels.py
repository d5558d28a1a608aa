"""A function for each kind of panel: with title, description, unit, thresholds and legend.

Panels that show one point in time use instant queries.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

from grafana_foundation_sdk.builders import (
    bargauge,
    common,
    dashboard,
    heatmap,
    stat,
    statetimeline,
    table,
    timeseries,
)
from grafana_foundation_sdk.models import common as choices
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models.heatmap import HeatmapColorMode
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from services.grafana.common import NEUTRAL, Queries, Steps, add_queries, describe

Panel: TypeAlias = (
    bargauge.Panel
    | heatmap.Panel
    | stat.Panel
    | statetimeline.Panel
    | table.Panel
    | timeseries.Panel
)

# Grafana sorts a histogram's buckets by the number in the legend, so the legend is only that.
_BOUND = "{{le}}"
_MISSING = "–"


def over_time(
    title: str,
    description: str,
    unit: str,
    queries: Queries,
    *,
    thresholds: Steps = NEUTRAL,
    stacked: choices.StackingMode = choices.StackingMode.NONE,
    colours: Mapping[str, str] | None = None,
    log: bool = False,
    most: float | None = None,
) -> timeseries.Panel:
    """Return a panel of lines over time, or of areas if stacked; thresholds are dashed lines.

    `colours` map series names in the legend to colours; `most` is the upper end of the axis.
    """
    panel = describe(timeseries.Panel(), title, description, unit, thresholds)
    panel = add_queries(panel, queries)
    # the legend is a table with each series' last value and mean
    panel.legend(
        common.VizLegendOptions()
        .display_mode(choices.LegendDisplayMode.TABLE)
        .placement(choices.LegendPlacement.BOTTOM)
        .show_legend(True)
        .calcs(["lastNotNull", "mean"])
    )
    panel.tooltip(
        common.VizTooltipOptions()
        .mode(choices.TooltipDisplayMode.MULTI)
        .sort(choices.SortOrder.DESCENDING)
    )
    panel.line_width(1).show_points(choices.VisibilityMode.NEVER)
    if stacked is not choices.StackingMode.NONE:
        panel.stacking(common.StackingConfig().mode(stacked).group("A")).fill_opacity(70)
    if log:
        panel.scale_distribution(
            common.ScaleDistributionConfig().type(choices.ScaleDistribution.LOG).log(10)
        )
    else:
        panel.min(0)
    if most is not None:
        panel.max(most)
    if thresholds is not NEUTRAL:
        panel.thresholds_style(
            common.GraphThresholdsStyleConfig().mode(choices.GraphThresholdsStyleMode.DASHED)
        )
    for name, colour in (colours or {}).items():
        fixed = {"mode": "fixed", "fixedColor": colour}
        panel.override_by_name(name, [models.DynamicConfigValue(id_val="color", value=fixed)])
    return panel


def number(
    title: str,
    description: str,
    unit: str,
    queries: Queries,
    *,
    thresholds: Steps = NEUTRAL,
    text: choices.BigValueTextMode = choices.BigValueTextMode.VALUE,
    missing: str = _MISSING,
) -> stat.Panel:
    """Return a panel of current numbers or names; `missing` is shown where there is no value."""
    panel = describe(stat.Panel(), title, description, unit, thresholds)
    panel = add_queries(panel, queries, instant=True)
    panel.reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]).values(False))
    panel.text_mode(text).color_mode(choices.BigValueColorMode.VALUE)
    panel.graph_mode(choices.BigValueGraphMode.NONE)
    panel.justify_mode(choices.BigValueJustifyMode.AUTO)
    return panel.no_value(missing).mappings(_no_number(missing))


def bars(
    title: str,
    description: str,
    unit: str,
    queries: Queries,
    *,
    thresholds: Steps = NEUTRAL,
    most: float | None = None,
    missing: str = _MISSING,
    shape: PromQueryFormat = PromQueryFormat.TIME_SERIES,
) -> bargauge.Panel:
    """Return a panel with one bar per series, of the current values."""
    panel = describe(bargauge.Panel(), title, description, unit, thresholds)
    panel = add_queries(panel, queries, instant=True, shape=shape)
    panel.reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]).values(False))
    panel.orientation(choices.VizOrientation.HORIZONTAL)
    panel.display_mode(choices.BarGaugeDisplayMode.BASIC)
    panel.value_mode(choices.BarGaugeValueMode.TEXT).show_unfilled(True)
    panel.name_placement(choices.BarGaugeNamePlacement.LEFT)
    panel.min(0).no_value(missing).mappings(_no_number(missing))
    if thresholds is NEUTRAL:
        panel.color_scheme(
            dashboard.FieldColor().mode(models.FieldColorModeId.FIXED).fixed_color("blue")
        )
    return panel if most is None else panel.max(most)


def histogram(title: str, description: str, unit: str, expression: str) -> bargauge.Panel:
    """Return a panel with one bar per bucket; `expression` is by `le`, `unit` is of the counts."""
    return bars(title, description, unit, {_BOUND: expression}, shape=PromQueryFormat.HEATMAP)


def heat_map(title: str, description: str, unit: str, expression: str) -> heatmap.Panel:
    """Return a histogram over time; `expression` is by `le`, and `unit` is of its bounds."""
    panel = describe(heatmap.Panel(), title, description, "short", NEUTRAL)
    panel = add_queries(panel, {_BOUND: expression}, shape=PromQueryFormat.HEATMAP)
    panel.y_axis(
        heatmap.YAxisConfig().unit(unit).axis_placement(choices.AxisPlacement.LEFT).reverse(False)
    )
    panel.color(
        heatmap.HeatmapColorOptions()
        .mode(HeatmapColorMode.SCHEME)
        .scheme("Viridis")
        .steps(64)
        .reverse(False)
    )
    panel.scale_distribution(
        common.ScaleDistributionConfig().type(choices.ScaleDistribution.LINEAR)
    )
    panel.rows_frame(heatmap.RowsHeatmapOptions().layout(choices.HeatmapCellLayout.AUTO))
    panel.filter_values(heatmap.FilterValueRange().le(1e-9)).cell_gap(1)
    return panel.show_legend().mode(choices.TooltipDisplayMode.SINGLE).show_y_histogram()


def states(
    title: str, description: str, queries: Queries, names: Mapping[str, tuple[str, str]]
) -> statetimeline.Panel:
    """Return one strip per series over time; `names` are the text and colour of each value."""
    panel = describe(statetimeline.Panel(), title, description, "none", NEUTRAL)
    panel = add_queries(panel, queries)
    results = {
        value: models.ValueMappingResult(text=text, color=colour)
        for value, (text, colour) in names.items()
    }
    panel.mappings([models.ValueMap(options=results)])
    panel.legend(
        common.VizLegendOptions()
        .display_mode(choices.LegendDisplayMode.LIST)
        .placement(choices.LegendPlacement.BOTTOM)
        .show_legend(True)
    )
    panel.line_width(0).fill_opacity(70)
    return panel.merge_values(True).show_value(choices.VisibilityMode.NEVER).row_height(0.8)


def matrix(
    title: str,
    description: str,
    unit: str,
    expression: str,
    *,
    row: str,
    column: str,
    thresholds: Steps,
) -> table.Panel:
    """Return a table of current values for pairs of two labels, coloured by the thresholds."""
    panel = describe(table.Panel(), title, description, unit, thresholds)
    panel = add_queries(panel, {"": expression}, instant=True, shape=PromQueryFormat.TABLE)
    panel.with_transformation(
        models.DataTransformerConfig(
            id_val="groupingToMatrix",
            options={"rowField": row, "columnField": column, "valueField": "Value"},
        )
    )
    panel.cell_options(
        choices.TableColoredBackgroundCellOptions(mode=choices.TableCellBackgroundDisplayMode.BASIC)
    )
    panel.override_by_name(
        rf"{row}\{column}",  # the corner cell, above the rows' names
        [
            models.DynamicConfigValue(id_val="unit", value="none"),
            models.DynamicConfigValue(id_val="custom.cellOptions", value={"type": "auto"}),
        ],
    )
    panel.no_value(_MISSING).mappings(_no_number(_MISSING))
    return panel.show_header(True).cell_height(choices.TableCellHeight.SM)


def _no_number(missing: str) -> list[models.ValueMapping]:
    """Map null and NaN to `missing`: while nothing runs, shares are NaN."""
    options = models.DashboardSpecialValueMapOptions(
        match=models.SpecialValueMatch.NULL_AND_NAN, result=models.ValueMappingResult(text=missing)
    )
    return [models.SpecialValueMap(options=options)]
