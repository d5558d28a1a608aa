"""BoolQ: `passage`, `question` (without its question mark) and `answer`, true or false.

SuperGLUE has a `label` instead of the answer, 0 (no) or 1 (yes).
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from orchestrator.prompts.formats import item, source
from orchestrator.prompts.formats.item import Items, Loaded
from orchestrator.prompts.formats.source import Label, Published, Text

TEMPLATE = "boolq-1"


def _truth(value: Any) -> Any:
    """Convert a truth value that a distribution stores as text."""
    texts = {"true": True, "false": False}
    return texts.get(value.strip().lower(), value) if isinstance(value, str) else value


class _Line(Published):
    question: Text
    passage: Text
    answer: Annotated[bool | None, BeforeValidator(_truth), Field(description="true or false")] = (
        None
    )
    label: Label = None


def load(path: Path, shots: int) -> Loaded:
    """Load the prompts of a file; shots are the first items of the train split next to it."""
    return item.load(path, shots, TEMPLATE, _read)


def _read(path: Path) -> Items:
    file = source.read(path)
    items = []
    for number, line in enumerate(file.items(_Line), start=1):
        gold = line.label if line.answer is None else int(line.answer)
        if gold is None:
            raise file.fault(number, "answer", None, "true or false; nor is there a label, 0 or 1")
        context = f"{line.passage}\nQuestion: {line.question}?\nAnswer:"
        items.append(item.choice(f"boolq-{number}", context, [" no", " yes"], gold))
    return Items(items, [file])
