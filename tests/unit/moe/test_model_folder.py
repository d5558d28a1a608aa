"""`wdmoe model info` accepts a folder only if a base station can start with it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.process.root import ROOT
from tests.harness.command import Wdmoe

BUNDLED = ROOT / "models" / "bundled"
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return shutil.copytree(BUNDLED, tmp_path / "model")


def make_pointer(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_text(POINTER)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "tokenizer.json").unlink(), "tokenizer.json: missing"),
        (lambda folder: (folder / "tokenizer.json").write_text("{}"), "not a readable tokenizer"),
        (make_pointer("tokenizer.json"), "tokenizer.json: a git-lfs pointer"),
        (make_pointer("tokenizer_config.json"), "tokenizer_config.json: a git-lfs pointer"),
        (make_pointer("generation_config.json"), "generation_config.json: a git-lfs pointer"),
        (make_pointer("model.safetensors"), "model.safetensors: a git-lfs pointer"),
    ],
)
def test_an_incomplete_folder_is_refused_in_one_line(
    wdmoe: Wdmoe, folder: Path, damage: Callable[[Path], object], message: str
) -> None:
    damage(folder)
    result = wdmoe("model", "info", str(folder))
    assert result.code == 2
    assert message in result.err
    assert result.err.count("\n") == 1


def test_a_complete_folder_is_described(wdmoe: Wdmoe, folder: Path) -> None:
    assert wdmoe.json("model", "info", str(folder))["experts"] == 8
