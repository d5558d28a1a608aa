"""One item of a prompt set, whatever benchmark it comes from."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

Text = Annotated[str, StringConstraints(min_length=1)]
Scoring = Literal["match", "number", "choice", "code"]


class Prompt(BaseModel):
    """What is asked, what is right, and how the answer is scored.

    match    what is generated (after the last `####`, if there is one) is `answer`, by character
    number   the number that is generated is the number `answer`
    choice   a `ChoicePrompt`
    code     a `CodePrompt`
    """

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    id: Text
    prompt: Text
    answer: Text
    max_tokens: int = Field(ge=0)
    stop: list[Text]
    scoring: Scoring = "match"


class ChoicePrompt(Prompt):
    """A multiple choice: of `choices`, continuations of the prompt, number `gold` is right.

    Nothing is generated; `answer` is the right one's text.
    """

    max_tokens: int = 0
    stop: list[Text] = []
    scoring: Scoring = "choice"
    choices: list[Text] = Field(min_length=1)
    gold: int = Field(ge=0)


class CodePrompt(Prompt):
    """A program to go on with: it has to pass `test`, which defines `check(entry_point)`.

    `answer` is a solution to read.
    """

    scoring: Scoring = "code"
    test: Text
    entry_point: Text
