"""GSM8K: lines of `question` and `answer`, a worked solution that ends in `#### NUMBER`."""

from __future__ import annotations

from pathlib import Path

from orchestrator.prompts.formats import item, source
from orchestrator.prompts.formats.item import Item, Items, Loaded
from orchestrator.prompts.formats.source import Published, Text
from orchestrator.prompts.prompt import Prompt
from orchestrator.prompts.scoring import read_number

TEMPLATE = "gsm8k-1"
MAX_TOKENS = 256


class _Line(Published):
    question: Text
    answer: Text


def load(path: Path, shots: int) -> Loaded:
    """Load the prompts of a file; shots are the first items of the train split next to it."""
    return item.load(path, shots, TEMPLATE, _read)


def _read(path: Path) -> Items:
    file = source.read(path)
    items = []
    for number, line in enumerate(file.items(_Line), start=1):
        answer = read_number(line.answer.rpartition("####")[2]) if "####" in line.answer else None
        if answer is None:
            raise file.fault(number, "answer", line.answer, "a text that ends in #### NUMBER")
        prompt = Prompt(
            id=f"gsm8k-{number}",
            prompt=f"Question: {line.question}\nAnswer:",
            answer=answer,
            max_tokens=MAX_TOKENS,
            stop=["Question:", "\n\n"],
            scoring="number",
        )
        items.append(Item(prompt, solution=f" {line.answer}"))
    return Items(items, [file])
