"""The table of settings agrees with the code, with docker-compose.yml and with its page."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from orchestrator.process import settings_table
from orchestrator.process.root import ROOT
from orchestrator.process.settings_table import SETTINGS

NAMES = [setting.name for setting in SETTINGS]
DEFAULTS = {setting.name: setting.default for setting in SETTINGS}
COMPOSE = (ROOT / "docker-compose.yml").read_text()
OWN_NAME = re.compile(r"\bWDMOE_[A-Z0-9_]*[A-Z0-9]\b")


def python_files(*folders: str) -> list[Path]:
    files = [file for folder in folders for file in (ROOT / folder).rglob("*.py")]
    return sorted(set(files) - {Path(settings_table.__file__)})


def source_text() -> str:
    """All text that may read a setting."""
    files = python_files("orchestrator", "services", "models", "benchmarks")
    files += ROOT.glob("docker-compose*.yml")
    files += (file for file in (ROOT / "images").iterdir() if file.is_file())
    files += (ROOT / "tests" / "netem_kernel" / name for name in ("run", "init.sh"))
    files += (ROOT / "setup.sh", ROOT / "Makefile")
    return "\n".join(file.read_text() for file in files)


def literal_defaults(file: Path) -> Iterator[tuple[str, str]]:
    """Yield (name, default) of each call whose first two arguments are a setting and a literal."""
    for node in ast.walk(ast.parse(file.read_text())):
        match node:
            case ast.Call(args=[ast.Constant(str(name)), ast.Constant(str(default)), *_]):
                if name in NAMES:
                    yield name, default


def test_the_page_is_what_the_program_prints() -> None:
    # -S: no package beyond Python's own is needed
    command = [sys.executable, "-S", "-m", "orchestrator.process.settings_table"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, encoding="utf-8", check=True)
    assert result.stdout == (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")


def test_each_setting_has_one_complete_row() -> None:
    assert len(set(NAMES)) == len(NAMES)
    for setting in SETTINGS:
        assert setting.allowed
        assert setting.what.endswith(".")
        assert setting.where
        assert "|" not in setting.allowed + setting.what


def test_the_table_has_the_settings_that_the_source_has() -> None:
    found = set(OWN_NAME.findall(source_text()))
    assert {name for name in NAMES if name.startswith("WDMOE_")} == found


def test_every_other_variable_of_the_table_occurs_in_the_source() -> None:
    others = [name for name in NAMES if not name.startswith("WDMOE_")]
    text = source_text()
    assert [name for name in others if not re.search(rf"\b{name}\b", text)] == []


def test_the_table_has_every_variable_that_compose_interpolates() -> None:
    assert set(re.findall(r"\$\{([A-Z0-9_]+)", COMPOSE)) <= set(NAMES)


def test_documents_mention_no_unknown_setting() -> None:
    for file in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        assert set(OWN_NAME.findall(file.read_text())) <= set(NAMES), file.name


def test_defaults_are_those_of_compose() -> None:
    # The default of a nested variable is the outer one's: ${A:-${B:-default}}
    found = dict(re.findall(r"(?<!:-)\$\{([A-Z0-9_]+):-([^${}]*)\}", COMPOSE))
    assert len(found) >= 18
    found["COMPOSE_PROJECT_NAME"] = yaml.safe_load(COMPOSE)["name"]
    assert found == {name: DEFAULTS[name] for name in found}


def test_compose_passes_fixed_settings_their_defaults() -> None:
    fixed = dict(re.findall(r"^  (WDMOE_[A-Z_]+): ([^$\n]+)$", COMPOSE, re.MULTILINE))
    assert fixed == {name: DEFAULTS[name] for name in fixed}
    assert {s.name for s in SETTINGS if s.internal} >= set(fixed)


@pytest.mark.parametrize(
    ("file", "least"),
    [
        (ROOT / "services" / "settings.py", 10),
        (ROOT / "orchestrator" / "control" / "http.py", 5),
        (ROOT / "orchestrator" / "cli" / "common.py", 2),
        (ROOT / "orchestrator" / "host" / "model_mount.py", 1),
    ],
    ids=lambda value: value.name if isinstance(value, Path) else "",
)
def test_defaults_in_code_are_readable(file: Path, least: int) -> None:
    assert len(list(literal_defaults(file))) >= least


def test_defaults_are_those_of_the_code() -> None:
    for file in python_files("orchestrator", "services"):
        for name, default in literal_defaults(file):
            assert default == DEFAULTS[name], f"{file}: {name}"


def test_images_have_the_default_base() -> None:
    for file in (ROOT / "images" / "Dockerfile", ROOT / "images" / "prometheus.Dockerfile"):
        assert f"ARG BASE_IMAGE={DEFAULTS['BASE_IMAGE']}\n" in file.read_text()
