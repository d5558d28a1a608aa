"""A dashboard: rows of panels on Grafana's grid, and the settings common to all dashboards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from grafana_foundation_sdk.builders import dashboard
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models import dashboard as models

from services.grafana.common import PROMETHEUS
from services.grafana.panels import Panel

TAG = "wdmoe"
COLUMNS = 24


@dataclass(frozen=True)
class Line:
    """Panels side by side, of one height; widths add up to the grid's columns."""

    height: int
    panels: Sequence[tuple[int, Panel]]


def line(height: int, *panels: Panel, widths: Sequence[int] = ()) -> Line:
    """Return panels side by side, of equal widths unless `widths` are given."""
    shares = widths or (COLUMNS // len(panels),) * len(panels)
    return Line(height, tuple(zip(shares, panels, strict=True)))


@dataclass(frozen=True)
class Section:
    """A question as a row's title, and the lines that answer it; repeated for each of `repeat`."""

    title: str
    lines: Sequence[Line]
    repeat: str | None = None


class Annotation(dashboard.AnnotationQuery):
    """A Prometheus annotation, with the fields for which the SDK has no methods."""

    def __init__(self, name: str, colour: str, expression: str, text: str) -> None:
        super().__init__()
        self._internal = _WithText(name=name, icon_color=colour, expr=expression, text=text)


class _WithText(models.AnnotationQuery):
    def __init__(self, name: str, icon_color: str, expr: str, text: str) -> None:
        super().__init__(name, PROMETHEUS, icon_color=icon_color, expr=expr, built_in=None)
        self._text = text

    def to_json(self) -> dict[str, object]:
        """Return the JSON of a mark for each series of the expression, from its begin to its end.

        Queried in the finest steps, because without a step Grafana uses one per minute.
        """
        payload = super().to_json()
        return {**payload, "step": "2s", "titleFormat": self.name, "textFormat": self._text}


def _begins(series: str) -> str:
    """Return an expression for a series' first step on the graph, whatever a step is."""
    return f"{series} unless {series} offset $__interval"


ANNOTATIONS = (
    ("Profile", "blue", _begins("wdmoe_profile_info"), "{{profile}}"),
    ("Policy", "purple", _begins("wdmoe_policy_info"), "{{name}} {{params}}"),
    (
        "Replay",
        "green",
        "wdmoe_replay_info and on (instance) wdmoe_replay_running == 1",
        "{{prompts}}",
    ),
    ("Alert", "red", 'ALERTS{alertstate="firing"}', "{{alertname}} {{device}} {{direction}}"),
)


class DeviceVariable(dashboard.QueryVariable):
    """`$device`: all devices, or some of them."""

    def __init__(self) -> None:
        super().__init__("device")
        all_devices = models.VariableOption(selected=True, text=["All"], value=["$__all"])
        self.label("Device").description("Devices to show, one row each").datasource(PROMETHEUS)
        self.query({"query": "label_values(wdmoe_device_up, device)", "refId": "device"})
        self.refresh(models.VariableRefresh.ON_DASHBOARD_LOAD)
        self.sort(models.VariableSort.NUMERICAL_ASC)
        self.multi(True).include_all(True).current(all_devices)
        # fields of interval variables, which the SDK gives to every kind of variable
        self._internal.auto = self._internal.auto_min = self._internal.auto_count = None


def board(
    name: str,
    description: str,
    sections: Sequence[Section],
    variables: Sequence[dashboard.QueryVariable] = (),
) -> models.Dashboard:
    """Return the dashboard `wdmoe-NAME`, with its panels in order on the grid."""
    page = dashboard.Dashboard(f"WDMoE {name}").uid(f"{TAG}-{name}").description(description)
    page.tags([TAG]).readonly().tooltip(models.DashboardCursorSync.CROSSHAIR)
    page.refresh("5s").time("now-15m", "now").timezone("browser")
    page.timepicker(dashboard.TimePicker().refresh_intervals(["5s", "10s", "30s", "1m"]))
    page.link(
        dashboard.DashboardLink("WDMoE")
        .type(models.DashboardLinkType.DASHBOARDS)
        .tags([TAG])
        .as_dropdown(False)
        .keep_time(True)
        .include_vars(True)
        .icon("dashboard")
        .tooltip("The other dashboards, at the same time")
    )
    for annotation in ANNOTATIONS:
        page.annotation(Annotation(*annotation))
    for variable in variables:
        page.with_variable(variable)
    number, y = 0, 0
    for section in sections:
        number += 1
        row = dashboard.Row(section.title).id(number).collapsed(False)
        row.grid_pos(models.GridPos(x=0, y=y, w=COLUMNS, h=1))
        page.with_row(row if section.repeat is None else row.repeat(section.repeat))
        y += 1
        for line in section.lines:
            x = 0
            for width, panel in line.panels:
                number += 1
                panel.id(number).grid_pos(models.GridPos(x=x, y=y, w=width, h=line.height))
                page.with_panel(panel)
                x += width
            y += line.height
    return page.build()


def to_board(name: str, title: str) -> list[Builder[models.DashboardLink]]:
    """Return a panel's links: one to another dashboard, with the same time range."""
    return [
        dashboard.DashboardLink(title)
        .type(models.DashboardLinkType.LINK)
        .url(f"/d/{TAG}-{name}?${{__url_time_range}}")
    ]
