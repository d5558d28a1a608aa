"""PIQA: lines of `goal`, `sol1` and `sol2`; beside FILE.jsonl a FILE-labels.lst, 0 or 1 a line."""

from __future__ import annotations

from pathlib import Path

from orchestrator.errors import InputError
from orchestrator.replay.formats import item, source
from orchestrator.replay.formats.item import Items, Loaded
from orchestrator.replay.formats.source import Published, Text

TEMPLATE = "piqa-1"


class _Line(Published):
    goal: Text
    sol1: Text
    sol2: Text


def load(path: Path, shots: int) -> Loaded:
    """The prompts of a file; shots are the first items of the `train.jsonl` beside it."""
    return item.load(path, shots, "train.jsonl", TEMPLATE, _read)


def _read(path: Path) -> Items:
    file = source.read(path)
    lines = file.items(_Line)
    labels = source.read(path.with_name(f"{Path(path.name.removesuffix('.gz')).stem}-labels.lst"))
    told = labels.lines()
    if len(told) != len(lines):
        raise InputError(
            f"prompt set {labels.path}: {len(told)} labels; allowed: {len(lines)}, as many as "
            f"{path} has items"
        )
    items = []
    for number, (line, label) in enumerate(zip(lines, told, strict=True), start=1):
        if label.strip() not in ("0", "1"):
            raise labels.fault(number, "label", label, "0 or 1")
        for name, value in (("sol1", line.sol1), ("sol2", line.sol2)):
            if not value.strip():
                raise file.fault(number, name, value, "a text that is not blank")
        context = f"Question: {line.goal}\nAnswer:"
        choices = [f" {line.sol1}", f" {line.sol2}"]
        items.append(item.choice(f"piqa-{number}", context, choices, int(label)))
    return Items(items, [file, labels])
