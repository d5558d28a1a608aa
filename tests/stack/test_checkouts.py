"""Two checkouts on one host: neither starts, stops or partly replaces the other's stack."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from orchestrator.process.root import ROOT
from tests.harness.command import source_of
from tests.stack.conftest import (
    PROJECT,
    Stack,
    container,
    docker,
    run_wdmoe,
    until,
    wdmoe,
)

COPIED = ("orchestrator", "services", "images", "netem_profiles", "prompts")
FILES = ("docker-compose.yml", "pyproject.toml", ".dockerignore", ".env")


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """Create another checkout, with an additional source file and settings only in its .env."""
    folder = tmp_path / "other"
    for name in COPIED:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in FILES:
        if (ROOT / name).exists():
            shutil.copy(ROOT / name, folder)
    (folder / "orchestrator" / "another.py").write_text('"""Empty."""\n')
    with (folder / ".env").open("a") as settings:
        settings.write(f"COMPOSE_PROJECT_NAME={PROJECT}\n")
        settings.write("WDMOE_BS_PORT=18000\nWDMOE_ORCHESTRATOR_PORT=18080\n")
    return folder


def wdmoe_of(checkout: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run another checkout's command line, in an environment without settings."""
    plain = {key: value for key, value in os.environ.items() if not key.startswith("WDMOE_")}
    return run_wdmoe(*arguments, env={**plain, "PYTHONPATH": str(checkout)})


def ids() -> dict[str, str]:
    """Return the id of each container of the stack."""
    label = f"label=com.docker.compose.project={PROJECT}"
    lines = docker("ps", "--filter", label, "--format", "{{.Names}} {{.ID}}").splitlines()
    return dict(line.split() for line in lines)


@pytest.mark.parametrize("command", ["up", "down"])
def test_another_checkouts_stack_is_left_alone(stack: Stack, other: Path, command: str) -> None:
    before = ids()
    done = wdmoe_of(other, command)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert f"is of the checkout {ROOT}" in line
    assert "COMPOSE_PROJECT_NAME" in line
    assert ids() == before


def test_commands_read_settings_from_the_env_file(stack: Stack, other: Path) -> None:
    done = wdmoe_of(other, "status", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["orchestrator"]["epoch"] == stack.status()["epoch"]


def test_containers_of_other_source_are_reported_and_replaced(stack: Stack, other: Path) -> None:
    assert stack.wdmoe("status")["warnings"] == []
    compose = ("compose", "--project-directory", str(ROOT))
    docker("compose", "--project-directory", str(other), "build")  # replaces the images
    try:
        docker(*compose, "up", "-d", "--no-build", "--no-deps", "orchestrator", "device-5")
        until(lambda: len(warnings()) == 2, "both containers are reported")
        assert [line.split(",")[0].split(":")[0] for line in warnings()] == [
            f"the orchestrator runs source {source_of(other)}",
            "device-5",
        ]
        before = ids()
    finally:
        up = stack.wdmoe("up")
    assert up["warnings"] == stack.wdmoe("status")["warnings"] == []
    after = ids()
    changed = {name for name in after if after[name] != before[name]}
    assert changed == {container("orchestrator"), container("device-5")}


def warnings() -> list[str]:
    """Return the warnings of `wdmoe status`, none if it fails."""
    done = wdmoe("status", "--json")
    return list(json.loads(done.stdout)["warnings"]) if done.returncode == 0 else []


def test_a_second_up_leaves_containers_alone(stack: Stack) -> None:
    before = ids()
    stack.wdmoe("up")
    assert ids() == before
