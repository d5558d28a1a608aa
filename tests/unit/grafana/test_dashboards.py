"""Every panel of the dashboards has a title, a unit and a description, and none overlap."""

from __future__ import annotations

import itertools
import json
import re
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry

from orchestrator.metrics import bs_metrics, device_metrics, orchestrator_metrics
from orchestrator.process.root import ROOT
from services.grafana.catalogue import FOLDER, as_json
from tests.harness.dashboards import expressions, panels

BOARDS: dict[str, dict[str, Any]] = {name: json.loads(text) for name, text in as_json().items()}
SUFFIXES = {
    "counter": ["_total"],
    "gauge": [""],
    "histogram": ["_bucket", "_sum", "_count"],
    "info": ["_info"],
}
PANELS = [
    pytest.param(panel, id=f"{name}-{panel['title']}")
    for name, board in BOARDS.items()
    for panel in panels(board)
]


def test_the_committed_dashboards_are_what_the_program_writes() -> None:
    committed = {path.stem: path.read_text() for path in FOLDER.glob("*.json")}
    assert committed == as_json(), "run python -m services.grafana"


@pytest.mark.parametrize("panel", PANELS)
def test_a_panel_says_what_it_shows(panel: dict[str, Any]) -> None:
    field = panel["fieldConfig"]["defaults"]
    assert panel["title"]
    assert panel["description"].endswith(".")
    assert field["unit"]
    assert field["thresholds"]["steps"][0]["value"] is None
    assert panel["datasource"]["uid"] == "prometheus"
    for query in panel["targets"]:
        assert (
            query["legendFormat"] or panel["type"] == "table"
        )  # whose columns are named by labels
    if panel["type"] in ("timeseries", "state-timeline"):
        assert panel["options"]["legend"]["showLegend"]


@pytest.mark.parametrize("panel", PANELS)
def test_panels_of_one_point_in_time_use_instant_queries(panel: dict[str, Any]) -> None:
    if panel["type"] in ("stat", "bargauge", "table"):
        assert all(query["instant"] for query in panel["targets"])
        (mapping,) = panel["fieldConfig"]["defaults"]["mappings"]
        assert mapping["options"]["match"] == "null+nan"


@pytest.mark.parametrize("panel", PANELS)
def test_no_panel_stacks_by_percent(panel: dict[str, Any]) -> None:
    custom = panel["fieldConfig"]["defaults"].get("custom", {})
    assert custom.get("stacking", {}).get("mode") != "percent", "it scales the axis, not the legend"


@pytest.mark.parametrize("name", BOARDS)
def test_titles_and_ids_of_panels_are_unique(name: str) -> None:
    titles = [panel["title"] for panel in panels(BOARDS[name])]
    assert len(set(titles)) == len(titles)
    ids = [panel["id"] for panel in BOARDS[name]["panels"]]
    assert len(set(ids)) == len(ids)


def cells(panel: dict[str, Any]) -> set[tuple[int, int]]:
    """Return the cells of the grid that a panel covers."""
    at = panel["gridPos"]
    return set(
        itertools.product(range(at["x"], at["x"] + at["w"]), range(at["y"], at["y"] + at["h"]))
    )


@pytest.mark.parametrize("name", BOARDS)
def test_panels_cover_the_grid_without_overlap_or_hole(name: str) -> None:
    covered = [cells(panel) for panel in BOARDS[name]["panels"]]
    area = set().union(*covered)
    assert sum(map(len, covered)) == len(area), "panels overlap"
    height = max(y for _, y in area) + 1
    assert area == set(itertools.product(range(24), range(height))), "a hole, or off the grid"


def known_names() -> set[str]:
    """Return the names of all series in Prometheus: exported, recorded, or its own."""
    names = {"ALERTS", "process_cpu_seconds_total", "process_resident_memory_bytes"}
    for register in (bs_metrics, orchestrator_metrics, device_metrics):
        for metric in vars(register(CollectorRegistry())).values():
            for family in metric.collect():
                names |= {family.name + suffix for suffix in SUFFIXES[family.type]}
    for path in (ROOT / "services/prometheus/rules").glob("*.yml"):
        for group in yaml.safe_load(path.read_text())["groups"]:
            names |= {rule["record"] for rule in group["rules"] if "record" in rule}
    return names


@pytest.mark.parametrize("name", BOARDS)
def test_every_queried_metric_exists(name: str) -> None:
    text = " ".join(expressions(BOARDS[name]))
    queried = set(re.findall(r"\b(?:wdmoe|process)[_:][\w:]+|\bALERTS\b", text))
    assert queried
    assert queried <= known_names()


@pytest.mark.parametrize("name", BOARDS)
def test_every_dashboard_links_to_all_others_and_keeps_the_time(name: str) -> None:
    board = BOARDS[name]
    (link,) = board["links"]
    assert link["type"] == "dashboards"
    assert link["keepTime"]
    assert all(set(link["tags"]) <= set(other["tags"]) for other in BOARDS.values())
    assert board["uid"] == f"wdmoe-{name}"
    uids = {other["uid"] for other in BOARDS.values()}
    for panel in panels(board):
        for jump in panel.get("links", []):
            assert jump["url"].removeprefix("/d/").split("?")[0] in uids


@pytest.mark.parametrize("name", BOARDS)
def test_changes_of_profile_and_policy_are_marked(name: str) -> None:
    marks = {mark["name"]: mark["expr"] for mark in BOARDS[name]["annotations"]["list"]}
    assert "wdmoe_profile_info" in marks["Profile"]
    assert "wdmoe_policy_info" in marks["Policy"]


def test_each_device_has_its_own_row() -> None:
    board = BOARDS["devices"]
    (variable,) = board["templating"]["list"]
    (row,) = (panel for panel in board["panels"] if panel.get("repeat"))
    assert row["type"] == "row"
    assert row["repeat"] == variable["name"] == "device"
    below = [panel for panel in panels(board) if panel["gridPos"]["y"] > row["gridPos"]["y"]]
    assert below
    for panel in below:
        assert all('device="$device"' in query["expr"] for query in panel["targets"])


def test_the_overview_is_grafanas_home_dashboard() -> None:
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    home = compose["services"]["grafana"]["environment"][
        "GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"
    ]
    assert home == "/etc/grafana/dashboards/overview.json"


def test_dashboards_match_the_grafana_version_of_the_stack() -> None:
    image = re.search(r"grafana/grafana:([\d.]+)", (ROOT / "docker-compose.yml").read_text())
    assert image is not None
    types = json.loads((ROOT / "tests/grafana_schema/package.json").read_text())["dependencies"]
    assert types["@grafana/schema"] == image[1]
    assert f"!{image[1]}" in (ROOT / "pyproject.toml").read_text()
