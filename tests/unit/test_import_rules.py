"""Each room imports only what stands below it, and only `cli` knows the names of flags.

docs/architecture.md has the picture.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.main import get_command

from orchestrator.cli import app
from orchestrator.process.root import ROOT

# From the lowest room to the highest.
ORCHESTRATOR = (
    *("errors", "process", "files", "selection", "contracts", "metrics", "moe", "radio"),
    *("control", "prompts", "results", "client", "replay", "sweep", "verify", "report", "top"),
    *("extras", "host", "cli", "__main__"),
)
SHARED = ORCHESTRATOR[: ORCHESTRATOR.index("moe") + 1]  # what services may import
BASE_STATION = ("text", "tracing", "batch", "experts", "engine", "http", "build", "__main__")
DEVICE = ("link", "experts", "expert_server", "http", "__main__")
# The dashboards take their colours from the report; `wdmoe model build` builds a model.
EXCEPTIONS = {
    ("services/grafana/parts.py", "orchestrator.report.figures.latency"),
    ("orchestrator/cli/model.py", "models.smollm2.build"),
}


def imports(file: Path) -> Iterator[str]:
    """Yield the modules of this project that a file imports."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (name if is_module(name) else node.module for name in names)


def is_module(name: str) -> bool:
    path = ROOT / name.replace(".", "/")
    return path.is_dir() or path.with_suffix(".py").is_file()


def fault(importer: str, module: str) -> str | None:
    """Say which rule an import breaks; `importer` is a file's path below ROOT."""
    here, there = importer.removesuffix(".py").split("/"), module.split(".")
    top, target = here[0], there[0]
    if target in ("tests", "benchmarks", "models") and target != top:
        return f"nothing in {top} imports {target}"
    if target == "services" and top == "orchestrator":
        return "the orchestrator does not import services"
    if target == "orchestrator" and len(there) > 1:
        if top == "orchestrator" and len(here) > 1:
            return above(ORCHESTRATOR, here[1], there[1])
        return None if there[1] in SHARED else f"services import only {', '.join(SHARED)}"
    if target == "services" and len(there) > 2 and there[1] == here[1]:
        order = {"bs": BASE_STATION, "device": DEVICE}.get(here[1])
        return above(order, here[2], there[2]) if order else None
    if target == "services" and len(there) > 1 and there[1] not in (here[1], "net", "settings"):
        return f"services/{here[1]} does not import services/{there[1]}"
    return None


def above(order: tuple[str, ...], here: str, there: str) -> str | None:
    if here in ("__init__",) or order.index(there) <= order.index(here):
        return None
    return f"{here} stands below {there}"


def test_no_import_goes_up() -> None:
    files = [file for top in ("orchestrator", "services") for file in (ROOT / top).rglob("*.py")]
    found = [
        f"{path}: {module}: {broken}"
        for file in files
        for path in [str(file.relative_to(ROOT))]
        for module in imports(file)
        if (path, module) not in EXCEPTIONS and (broken := fault(path, module))
    ]
    assert len(files) > 200
    assert found == []


@pytest.mark.parametrize(
    ("importer", "module"),
    [
        ("orchestrator/radio/profiles.py", "orchestrator.control.plane"),
        ("orchestrator/client/client.py", "orchestrator.cli.common"),
        ("orchestrator/replay/run.py", "models.tasks"),
        ("orchestrator/replay/run.py", "orchestrator.extras.code_judge"),
        ("orchestrator/control/plane.py", "services.net.wire"),
        ("services/net/wire.py", "orchestrator.radio.profiles"),
        ("services/bs/batch/batch.py", "services.bs.engine.engine"),
        ("services/device/link/agent.py", "services.device.expert_server"),
        ("services/device/experts.py", "services.bs.text.tokenizer"),
    ],
)
def test_an_import_that_goes_up_is_found(importer: str, module: str) -> None:
    assert fault(importer, module) is not None


def test_rooms_are_not_crowded() -> None:
    """`orchestrator` has no flat file, `services/bs` none but its assembly and seven rooms."""
    flat = {path.name for path in (ROOT / "orchestrator").glob("*.py")}
    assert flat == {"__init__.py", "__main__.py", "errors.py"}
    station = ROOT / "services" / "bs"
    assert {path.name for path in station.glob("*.py")} <= {
        "__init__.py",
        "__main__.py",
        "build.py",
    }
    rooms = {file.parent for file in station.rglob("*.py")} - {station}
    assert len({room.relative_to(station).parts[0] for room in rooms}) <= 7
    for top in ("orchestrator", "services"):
        for folder in {file.parent for file in (ROOT / top).rglob("*.py")}:
            files = [file for file in folder.glob("*.py") if file.name != "__init__.py"]
            assert len(files) <= 13, folder


def flags() -> set[str]:
    """Return the long options of every command."""
    found, commands = set(), [get_command(app)]
    while commands:
        command = commands.pop()
        commands += getattr(command, "commands", {}).values()
        found |= {flag for option in command.params for flag in option.opts}
    return {flag for flag in found if flag.startswith("--")}


def texts(file: Path) -> Iterator[str]:
    """Yield the string literals of a file, pieces of f-strings too."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def test_only_the_command_line_names_flags() -> None:
    rooms = [path for path in (ROOT / "orchestrator").iterdir() if path.is_dir()]
    files = [file for room in rooms if room.name != "cli" for file in room.rglob("*.py")]
    files += [*(ROOT / "services").rglob("*.py"), *(ROOT / "orchestrator").glob("*.py")]
    known = flags()
    assert {"--out", "--shots", "--resume", "--theta"} <= known
    found = [
        f"{file.relative_to(ROOT)}: {flag}"
        for file in files
        for text in texts(file)
        for flag in known & set(re.findall(r"--[a-z][a-z-]*", text))
    ]
    assert found == []
