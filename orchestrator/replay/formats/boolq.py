"""BoolQ: lines of `passage`, `question` (without its question mark) and `answer`, true or false."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from orchestrator.replay.formats import item, source
from orchestrator.replay.formats.item import Items, Loaded
from orchestrator.replay.formats.source import Published, Text

TEMPLATE = "boolq-1"


class _Line(Published):
    question: Text
    passage: Text
    answer: bool = Field(description="true or false")


def load(path: Path, shots: int) -> Loaded:
    """The prompts of a file; shots are the first items of the `train.jsonl` beside it."""
    return item.load(path, shots, "train.jsonl", TEMPLATE, _read)


def _read(path: Path) -> Items:
    file = source.read(path)
    items = [
        item.choice(
            f"boolq-{number}",
            f"{line.passage}\nQuestion: {line.question}?\nAnswer:",
            [" no", " yes"],
            int(line.answer),
        )
        for number, line in enumerate(file.items(_Line), start=1)
    ]
    return Items(items, [file])
