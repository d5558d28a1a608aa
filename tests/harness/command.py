"""`wdmoe` commands run in this process, and a real orchestrator over HTTP for them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from orchestrator import cli
from orchestrator.control.http import create_app
from orchestrator.control.plane import ControlPlane
from orchestrator.metrics import orchestrator_metrics
from orchestrator.radio import profiles
from tests.harness.serving import serve


@dataclass
class Result:
    """The exit code and the output of a command."""

    code: int
    out: str
    err: str


class Wdmoe:
    """A runner of commands in this process, as the `wdmoe` script runs them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch = monkeypatch
        self._capsys = capsys

    def __call__(self, *arguments: str) -> Result:
        self._monkeypatch.setattr(sys, "argv", ["wdmoe", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        captured = self._capsys.readouterr()
        return Result(int(ended.value.code or 0), captured.out, captured.err)

    def json(self, *arguments: str) -> Any:
        result = self(*arguments, "--json")
        assert result.code == 0
        return json.loads(result.out)


@pytest.fixture
def wdmoe(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Wdmoe:
    # No service listens there unless a test sets other URLs.
    monkeypatch.setenv("WDMOE_ORCHESTRATOR_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("WDMOE_BS_URL", "http://127.0.0.1:9")
    return Wdmoe(monkeypatch, capsys)


@pytest.fixture
def orchestrator(wdmoe: Wdmoe, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Yield the URL of a real orchestrator with eight devices, which the commands use too."""
    registry = CollectorRegistry()
    control = ControlPlane(
        profiles.find("near-far"),
        devices=8,
        metrics=orchestrator_metrics(registry),
        keys_dir=None,
        state_address="tcp://127.0.0.1:*",
        report_address="tcp://127.0.0.1:*",
    )
    with control, serve(create_app(control, registry)) as url:
        monkeypatch.setenv("WDMOE_ORCHESTRATOR_URL", url)
        yield url


def source_of(checkout: Path) -> str:
    """Return a checkout's digest of its own source."""
    program = "from orchestrator.process.build import source; print(source())"
    result = subprocess.run(
        [sys.executable, "-c", program],
        env={"PYTHONPATH": str(checkout)},
        cwd=checkout,
        capture_output=True,
        text=True,
        check=True,
    )
    return result.stdout.strip()
