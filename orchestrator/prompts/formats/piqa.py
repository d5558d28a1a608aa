"""PIQA: `goal`, `sol1`, `sol2`, and which of the two is right, 0 or 1.

The label is in the line (as on Hugging Face), or in a FILE-labels.lst next to FILE.jsonl.
"""

from __future__ import annotations

from pathlib import Path

from orchestrator.errors import InputError
from orchestrator.prompts.formats import item, source, splits
from orchestrator.prompts.formats.item import Items, Loaded
from orchestrator.prompts.formats.source import Label, Published, Source, Text

TEMPLATE = "piqa-1"


class _Line(Published):
    goal: Text
    sol1: Text
    sol2: Text
    label: Label = None


def load(path: Path, shots: int) -> Loaded:
    """Load the prompts of a file; shots are the first items of the train split next to it."""
    return item.load(path, shots, TEMPLATE, _read)


def _read(path: Path) -> Items:
    file = source.read(path)
    lines = file.items(_Line)
    sources = [file]
    golds: list[int | None] = [line.label for line in lines]
    if not any(gold is not None for gold in golds):
        labels = _labels_of(path)
        sources, golds = [file, labels], _golds(labels, path, len(lines))
    items = []
    for number, (line, gold) in enumerate(zip(lines, golds, strict=True), start=1):
        if gold is None:
            raise file.fault(number, "label", None, "0 or 1")
        for name, value in (("sol1", line.sol1), ("sol2", line.sol2)):
            if not value.strip():
                raise file.fault(number, name, value, "a text that is not blank")
        context = f"Question: {line.goal}\nAnswer:"
        choices = [f" {line.sol1}", f" {line.sol2}"]
        items.append(item.choice(f"piqa-{number}", context, choices, gold))
    return Items(items, sources)


def _labels_of(path: Path) -> Source:
    labels = path.with_name(f"{splits.bare(path.name)}-labels.lst")
    for file in splits.compressed(labels):
        if file.exists():
            return source.read(file)
    raise InputError(
        f"prompt set {path}: its items have no field label, and there is no {labels}; "
        "allowed: either, 0 or 1 an item"
    )


def _golds(labels: Source, path: Path, items: int) -> list[int | None]:
    lines = labels.lines()
    if len(lines) != items:
        raise InputError(
            f"prompt set {labels.path}: {len(lines)} labels; allowed: {items}, as many as "
            f"{path} has items"
        )
    for number, label in enumerate(lines, start=1):
        if label.strip() not in ("0", "1"):
            raise labels.fault(number, "label", label, "0 or 1")
    return [int(label) for label in lines]
