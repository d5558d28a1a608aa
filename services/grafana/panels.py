"""A panel of each kind, with a title, a description, a unit, thresholds and a legend.

Those that show one point in time ask for that alone.
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

from services.grafana.common import NEUTRAL, Queries, Steps, asked, dressed

Panel: TypeAlias = (
    bargauge.Panel
    | heatmap.Panel
    | stat.Panel
    | statetimeline.Panel
    | table.Panel
    | timeseries.Panel
)

# By the number in a legend Grafana sorts the buckets of a histogram, so it is nothing else.
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
    """Lines over time; stacked: areas. Thresholds are drawn as dashed lines.

    `colours` are of series by their name in the legend, `most` is the axis' upper end.
    """
    panel = dressed(timeseries.Panel(), title, description, unit, thresholds)
    panel = asked(panel, queries)
    # a table beside its name tells each series' last value and mean
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
    """Large numbers or names, as they are now; `missing` where none is."""
    panel = dressed(stat.Panel(), title, description, unit, thresholds)
    panel = asked(panel, queries, instant=True)
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
    """A bar a series, as it is now."""
    panel = dressed(bargauge.Panel(), title, description, unit, thresholds)
    panel = asked(panel, queries, instant=True, shape=shape)
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
    """A bar a bucket, as it is now; `expression` is by `le`, `unit` of what it counts."""
    return bars(title, description, unit, {_BOUND: expression}, shape=PromQueryFormat.HEATMAP)


def heat_map(title: str, description: str, unit: str, expression: str) -> heatmap.Panel:
    """A histogram over time; `expression` is by `le`, and `unit` is of its bounds."""
    panel = dressed(heatmap.Panel(), title, description, "short", NEUTRAL)
    panel = asked(panel, {_BOUND: expression}, shape=PromQueryFormat.HEATMAP)
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
    """A strip a series over time; `names` are the text and the colour of each value."""
    panel = dressed(statetimeline.Panel(), title, description, "none", NEUTRAL)
    panel = asked(panel, queries)
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
    """One value for each pair of two labels, as it is now, coloured by the thresholds."""
    panel = dressed(table.Panel(), title, description, unit, thresholds)
    panel = asked(panel, {"": expression}, instant=True, shape=PromQueryFormat.TABLE)
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
        rf"{row}\{column}",  # the corner, over the rows' names
        [
            models.DynamicConfigValue(id_val="unit", value="none"),
            models.DynamicConfigValue(id_val="custom.cellOptions", value={"type": "auto"}),
        ],
    )
    panel.no_value(_MISSING).mappings(_no_number(_MISSING))
    return panel.show_header(True).cell_height(choices.TableCellHeight.SM)


def _no_number(missing: str) -> list[models.ValueMapping]:
    """While nothing runs, a share of nothing is not a number; nobody needs to read NaN."""
    options = models.DashboardSpecialValueMapOptions(
        match=models.SpecialValueMatch.NULL_AND_NAN, result=models.ValueMappingResult(text=missing)
    )
    return [models.SpecialValueMap(options=options)]
