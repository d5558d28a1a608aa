"""Every dashboard is what Grafana's published types say a dashboard is."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

from orchestrator.process.root import ROOT
from services.grafana.catalogue import as_json

TYPES = ROOT / "tests" / "grafana_schema" / "dashboard.ts"
# What `npm ci` has put there, see setup.sh.
PACKAGES = ROOT / ".build" / "grafana-schema" / "node_modules"
BOARDS = {name: json.loads(text) for name, text in as_json().items()}


def complaints(boards: dict[str, Any], folder: Path) -> str:
    """What TypeScript says of dashboards, written as literals of the published types."""
    if not PACKAGES.is_dir():
        pytest.skip("Grafana's types are not here: run ./setup.sh --tests")
    (folder / "dashboard.ts").write_text(TYPES.read_text())
    (folder / "node_modules").symlink_to(PACKAGES)
    lines = ['import type { Dashboard } from "./dashboard";']
    for name, board in boards.items():
        lines.append(f"export const {name}: Dashboard = {json.dumps(board, indent=1)};")
    (folder / "boards.ts").write_text("\n".join(lines))
    done = subprocess.run(
        [
            *(Path(sys.executable).parent / "node", PACKAGES / "typescript/bin/tsc"),
            *("--noEmit", "--strict", "--skipLibCheck", "--noErrorTruncation"),
            *("--target", "es2022", "--module", "esnext", "--moduleResolution", "node10"),
            "boards.ts",
        ],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode == 0) == (done.stdout == ""), done.stderr
    return done.stdout


def test_every_dashboard_is_of_the_published_types(tmp_path: Path) -> None:
    assert complaints(BOARDS, tmp_path) == ""


def _first(board: dict[str, Any], kind: str) -> Any:
    return next(panel for panel in board["panels"] if panel["type"] == kind)


BROKEN: dict[str, Callable[[dict[str, Any]], Any]] = {
    "a field that no panel has": lambda board: _first(board, "stat").update(titel="x"),
    "a kind of panel that is not there": lambda board: _first(board, "stat").update(type="grafik"),
    "an option of another kind": lambda board: _first(board, "stat")["options"].update(
        legend={"showLegend": True}
    ),
    "a text mode that is not there": lambda board: _first(board, "stat")["options"].update(
        textMode="loud"
    ),
    "a stacking that is not there": lambda board: _first(board, "timeseries")["fieldConfig"][
        "defaults"
    ].update(custom={"stacking": {"mode": "heaped"}}),
    "a threshold without a colour": lambda board: _first(board, "stat")["fieldConfig"]["defaults"][
        "thresholds"
    ]["steps"].append({"value": 1}),
    "a query without an expression": lambda board: _first(board, "stat")["targets"][0].pop("expr"),
    "a variable of no kind": lambda board: board["templating"]["list"].append(
        {"name": "x", "type": "guess"}
    ),
    "a link of no kind": lambda board: board["links"][0].update(type="rope"),
    "a refresh that is a number": lambda board: board.update(refresh=5),
}


def test_what_is_not_of_the_published_types_is_refused(tmp_path: Path) -> None:
    boards: dict[str, Any] = {}
    for number, spoil in enumerate(BROKEN.values()):
        board = json.loads(json.dumps(BOARDS["overview"])) | {"templating": {"list": []}}
        spoil(board)
        boards[f"broken_{number}"] = board
    found = complaints(boards, tmp_path)
    source = (tmp_path / "boards.ts").read_text().splitlines()
    begins = [place for place, text in enumerate(source, 1) if text.startswith("export const")]
    at = [
        int(text.split("(")[1].split(",")[0]) for text in found.splitlines() if "): error" in text
    ]
    ends = [*begins[1:], len(source) + 1]
    for what, begin, end in zip(BROKEN, begins, ends, strict=True):
        assert any(begin <= place < end for place in at), f"not refused: {what}"


@pytest.mark.parametrize("name", BOARDS)
def test_the_sdk_reads_every_dashboard_and_loses_nothing_of_its_panels(name: str) -> None:
    register_default_plugins()
    read = Dashboard.from_json(BOARDS[name])
    again = json.loads(JSONEncoder().encode(read))
    assert again["panels"] == BOARDS[name]["panels"]
