"""ARC, easy and challenge: `id`, `question`, `choices` of `text` and `label`, and `answerKey`."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from orchestrator.replay.formats import item, source
from orchestrator.replay.formats.item import Items, Loaded
from orchestrator.replay.formats.source import Published, Text

TEMPLATE = "arc-1"
MOST_CHOICES = 64  # the base station takes no more prompts at once


class _Choices(Published):
    text: list[Text] = Field(
        min_length=2, max_length=MOST_CHOICES, description="2 to 64 non-empty texts"
    )
    label: list[Text] = Field(
        min_length=2, max_length=MOST_CHOICES, description="2 to 64 non-empty texts"
    )


class _Line(Published):
    id: Text
    question: Text
    choices: _Choices = Field(description="an object of text and label")
    answerKey: Text  # noqa: N815  the published name


def load(path: Path, shots: int) -> Loaded:
    """The prompts of a file; shots are the first items of the `train.jsonl` beside it."""
    return item.load(path, shots, "train.jsonl", TEMPLATE, _read)


def _read(path: Path) -> Items:
    file = source.read(path)
    lines = file.items(_Line)
    items = []
    for number, line in enumerate(lines, start=1):
        texts, labels = line.choices.text, line.choices.label
        if len(labels) != len(texts) or len(set(labels)) != len(labels):
            raise file.fault(
                number, "choices.label", labels, f"{len(texts)} labels, one of its own a text"
            )
        if line.answerKey not in labels:
            raise file.fault(number, "answerKey", line.answerKey, f"one of {', '.join(labels)}")
        for text in texts:
            if not text.strip():
                raise file.fault(number, "choices.text", text, "a text that is not blank")
        context = f"Question: {line.question}\nAnswer:"
        choices = [f" {text}" for text in texts]
        items.append(item.choice(line.id, context, choices, labels.index(line.answerKey)))
    file.check_ids([line.id for line in lines])
    return Items(items, [file])
