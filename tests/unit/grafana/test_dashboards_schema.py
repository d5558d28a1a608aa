"""Every dashboard conforms to Grafana's published types."""

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
# Installed by `npm ci`, see setup.sh.
PACKAGES = ROOT / ".build" / "grafana-schema" / "node_modules"
BOARDS = {name: json.loads(text) for name, text in as_json().items()}


def type_errors(boards: dict[str, Any], folder: Path) -> str:
    """Return TypeScript's errors for dashboards, written as literals of the published types."""
    if not PACKAGES.is_dir():
        pytest.skip("Grafana's types are not installed: run ./setup.sh --tests")
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


def test_every_dashboard_conforms_to_the_published_types(tmp_path: Path) -> None:
    assert type_errors(BOARDS, tmp_path) == ""


def _first(board: dict[str, Any], kind: str) -> Any:
    return next(panel for panel in board["panels"] if panel["type"] == kind)


BROKEN: dict[str, Callable[[dict[str, Any]], Any]] = {
    "a field that no panel has": lambda board: _first(board, "stat").update(titel="x"),
    "an unknown kind of panel": lambda board: _first(board, "stat").update(type="grafik"),
    "an option of another kind": lambda board: _first(board, "stat")["options"].update(
        legend={"showLegend": True}
    ),
    "an unknown text mode": lambda board: _first(board, "stat")["options"].update(textMode="loud"),
    "an unknown stacking": lambda board: _first(board, "timeseries")["fieldConfig"][
        "defaults"
    ].update(custom={"stacking": {"mode": "heaped"}}),
    "a threshold without a colour": lambda board: _first(board, "stat")["fieldConfig"]["defaults"][
        "thresholds"
    ]["steps"].append({"value": 1}),
    "a query without an expression": lambda board: _first(board, "stat")["targets"][0].pop("expr"),
    "an unknown kind of variable": lambda board: board["templating"]["list"].append(
        {"name": "x", "type": "guess"}
    ),
    "an unknown kind of link": lambda board: board["links"][0].update(type="rope"),
    "a refresh that is a number": lambda board: board.update(refresh=5),
}


def test_broken_dashboards_are_refused(tmp_path: Path) -> None:
    boards: dict[str, Any] = {}
    for number, break_board in enumerate(BROKEN.values()):
        board = json.loads(json.dumps(BOARDS["overview"])) | {"templating": {"list": []}}
        break_board(board)
        boards[f"broken_{number}"] = board
    errors = type_errors(boards, tmp_path)
    source = (tmp_path / "boards.ts").read_text().splitlines()
    begins = [number for number, text in enumerate(source, 1) if text.startswith("export const")]
    error_lines = [
        int(text.split("(")[1].split(",")[0]) for text in errors.splitlines() if "): error" in text
    ]
    ends = [*begins[1:], len(source) + 1]
    for what, begin, end in zip(BROKEN, begins, ends, strict=True):
        assert any(begin <= number < end for number in error_lines), f"not refused: {what}"


@pytest.mark.parametrize("name", BOARDS)
def test_the_sdk_reads_every_dashboard_without_loss_in_its_panels(name: str) -> None:
    register_default_plugins()
    board = Dashboard.from_json(BOARDS[name])
    encoded = json.loads(JSONEncoder().encode(board))
    assert encoded["panels"] == BOARDS[name]["panels"]
