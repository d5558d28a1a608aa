"""`docs/architecture.md` names files, folders and definitions that exist; docs list every page."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from orchestrator.process.root import ROOT

DOCS = ROOT / "docs"
PAGE = (DOCS / "architecture.md").read_text()
# What can be named by the end of its path.
SOURCES = [
    path
    for top in ("orchestrator", "services")
    for path in (ROOT / top).rglob("*")
    if "__pycache__" not in path.parts
]
PATH = r"(?:[\w-]+/)*[\w-]+\.(?:py|yaml|yml|md)"

# Placeholders have the name NAME.
PATHS = sorted({path for path in re.findall(PATH, PAGE) if "NAME" not in path})
FOLDERS = sorted(set(re.findall(r"`((?:[\w-]+/)+)`", PAGE)))
REFERENCES = sorted(set(re.findall(rf"`({PATH}): ([\w.]+)`", PAGE)))


def resolve(name: str) -> Path:
    """Return the only source with this end of its path; else the path below ROOT or DOCS."""
    parts = Path(name).parts
    found = [path for path in SOURCES if path.parts[-len(parts) :] == parts]
    found = found or [base / name for base in (ROOT, DOCS) if (base / name).exists()][:1]
    assert len(found) == 1, f"{name} is {found or 'nothing'}; allowed: one file or folder"
    return found[0]


def definitions(body: list[ast.stmt], before: str = "") -> set[str]:
    """Return the names that statements define, those inside a class as `Class.name`."""
    names: set[str] = set()
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(before + node.name)
        if isinstance(node, ast.ClassDef):
            names |= definitions(node.body, f"{before}{node.name}.")
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {before + target.id for target in targets if isinstance(target, ast.Name)}
    return names


@pytest.mark.parametrize("path", PATHS)
def test_every_named_file_exists(path: str) -> None:
    assert resolve(path).is_file()


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_named_folder_exists(folder: str) -> None:
    assert resolve(folder).is_dir()


@pytest.mark.parametrize(("path", "name"), REFERENCES)
def test_every_reference_names_a_definition(path: str, name: str) -> None:
    assert name in definitions(ast.parse(resolve(path).read_text()).body)


def test_the_page_has_references() -> None:
    assert len(PATHS) > 80
    assert len(FOLDERS) > 20
    assert len(REFERENCES) > 60


@pytest.mark.parametrize("top", ["orchestrator", "services", "services/bs"])
def test_every_room_is_named(top: str) -> None:
    rooms = {file.parent for file in (ROOT / top).glob("*/*") if file.suffix in (".py", ".yml")}
    assert rooms <= {resolve(folder) for folder in FOLDERS}


def test_the_reading_order_lists_every_page_once() -> None:
    links = re.findall(r"\]\(([\w-]+\.md)\)", (DOCS / "README.md").read_text())
    assert sorted(links) == sorted(page.name for page in DOCS.glob("*.md") if page.stem != "README")


def test_the_readme_links_to_the_reading_order_and_the_architecture() -> None:
    readme = (ROOT / "README.md").read_text()
    assert "(docs/README.md)" in readme
    assert "(docs/architecture.md)" in readme
