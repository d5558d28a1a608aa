"""Custom and bundled sets: each line is a question or a multiple choice."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import from_json

from orchestrator.prompts.formats import item, source
from orchestrator.prompts.formats.item import Loaded, without_shots
from orchestrator.prompts.formats.source import Source, Text
from orchestrator.prompts.prompt import Prompt
from orchestrator.prompts.scoring import read_number

_Choice = Annotated[Text, Field(pattern=r"\S")]
# The limits of the base station.
_Stop = Annotated[Text, Field(max_length=256)]


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    id: Text
    prompt: Text


class _Question(_Strict):
    answer: Text
    max_tokens: int = Field(ge=1, le=1 << 17, description="an integer of at least 1")
    stop: list[_Stop] = Field(
        max_length=16, description="a list of at most 16 texts of 1 to 256 characters"
    )
    scoring: Literal["match", "number"] = Field("match", description="match or number")


class _MultipleChoice(_Strict):
    prompt: _Choice  # not blank: the first token has no log-probability, which a choice needs
    choices: list[_Choice] = Field(
        min_length=2, max_length=64, description="a list of 2 to 64 texts that are not blank"
    )
    gold: int = Field(description="the number of a choice, the first being 0")


def load(path: Path, shots: int) -> Loaded:
    """Load the prompts of a file unchanged; a line with `choices` is a multiple choice."""
    without_shots("jsonl", shots)
    file = source.read(path)
    prompts = [_prompt(file, number, line) for number, line in enumerate(file.lines(), start=1)]
    file.check_ids([prompt.id for prompt in prompts])
    return Loaded(prompts, [file], "")


def _prompt(file: Source, number: int, line: str) -> Prompt:
    if _has_choices(line):
        choice = file.item(number, line, _MultipleChoice)
        if not 0 <= choice.gold < len(choice.choices):
            raise file.fault(number, "gold", choice.gold, f"0 to {len(choice.choices) - 1}")
        return item.choice(choice.id, choice.prompt, choice.choices, choice.gold).prompt
    question = file.item(number, line, _Question)
    if question.scoring == "number" and read_number(question.answer) is None:
        raise file.fault(number, "answer", question.answer, "a number, as scoring has it")
    return Prompt(**question.model_dump())


def _has_choices(line: str) -> bool:
    try:
        value = from_json(line)
    except ValueError:
        return False
    return isinstance(value, dict) and "choices" in value
