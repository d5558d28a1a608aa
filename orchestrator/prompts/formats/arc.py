"""ARC, easy and challenge, in the formats of Hugging Face and AI2.

{"id", "question": "…", "choices": {"text": […], "label": […]}, "answerKey"}
{"id", "question": {"stem": "…", "choices": [{"text", "label"}, …]}, "answerKey"}
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from orchestrator.prompts.formats import item, source
from orchestrator.prompts.formats.item import Items, Loaded
from orchestrator.prompts.formats.source import Published, Text

TEMPLATE = "arc-1"
MOST_CHOICES = 64  # the limit of prompts per request at the base station


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

    @model_validator(mode="before")
    @classmethod
    def _one_form(cls, raw: Any) -> Any:
        if not isinstance(raw, dict):
            return raw
        line = dict(raw)
        if isinstance(question := line.get("question"), dict):
            line |= {"question": question.get("stem"), "choices": question.get("choices")}
        if "choices" in line:
            line["choices"] = _columns(line["choices"])
        if "answerKey" in line:
            line["answerKey"] = _label(line["answerKey"])
        return line


def load(path: Path, shots: int) -> Loaded:
    """Load the prompts of a file; shots are the first items of the train split next to it."""
    return item.load(path, shots, TEMPLATE, _read)


def _read(path: Path) -> Items:
    file = source.read(path)
    lines = file.items(_Line)
    items = []
    for number, line in enumerate(lines, start=1):
        texts, labels = line.choices.text, line.choices.label
        if len(labels) != len(texts) or len(set(labels)) != len(labels):
            raise file.fault(
                number, "choices.label", labels, f"{len(texts)} labels, a different one per text"
            )
        for text in texts:
            if not text.strip():
                raise file.fault(number, "choices.text", text, "a text that is not blank")
        gold = _gold(line.answerKey, labels)
        if gold is None:
            raise file.fault(number, "answerKey", line.answerKey, f"one of {', '.join(labels)}")
        context = f"Question: {line.question}\nAnswer:"
        items.append(item.choice(line.id, context, [f" {text}" for text in texts], gold))
    file.check_ids([line.id for line in lines])
    return Items(items, [file])


def _gold(key: str, labels: list[str]) -> int | None:
    """Return the index of the right choice; for lettered choices the key may be 1, 2, …"""
    if key in labels:
        return labels.index(key)
    lettered = labels == [chr(ord("A") + n) for n in range(len(labels))]
    numbers = [str(n + 1) for n in range(len(labels))]
    return numbers.index(key) if lettered and key in numbers else None


def _columns(choices: Any) -> Any:
    """Return choices as an object of lists, from a list of objects, or from JSON of either."""
    if isinstance(choices, str):
        try:
            choices = json.loads(choices)
        except (ValueError, RecursionError):
            return choices
    if isinstance(choices, list) and all(isinstance(choice, dict) for choice in choices):
        choices = {name: [choice.get(name) for choice in choices] for name in ("text", "label")}
    if isinstance(choices, dict) and isinstance(choices.get("label"), list):
        choices = choices | {"label": [_label(label) for label in choices["label"]]}
    return choices


def _label(value: Any) -> Any:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value
