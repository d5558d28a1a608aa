"""One item of a prompt set, for all benchmarks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from orchestrator.prompts.scoring import (
    Likelihood,
    Score,
    exact_match,
    extract_answer,
    final_number,
    likeliest,
    number_match,
)

Text = Annotated[str, StringConstraints(min_length=1)]
Scoring = Literal["match", "number", "choice", "code"]


class Prompt(BaseModel):
    """A prompt, its right answer, and how a completion is scored.

    match    the completion (after the last `####`, if any) equals `answer` character by character
    number   the last number of the completion equals the number `answer`
    choice   a `ChoicePrompt`
    code     a `CodePrompt`

    Attributes:
        generates: whether a completion is generated.
        needs_tests: whether the score depends on running a program.
    """

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)
    generates: ClassVar[bool] = True
    needs_tests: ClassVar[bool] = False

    id: Text
    prompt: Text
    answer: Text
    max_tokens: int = Field(ge=0)
    stop: list[Text]
    scoring: Scoring = "match"

    @property
    def texts(self) -> list[str]:
        """The texts that a request sends."""
        return [self.prompt]

    @property
    def labelled_answers(self) -> list[tuple[str, str]]:
        """The answers with a label each, for readers: the right one, or all there are."""
        return [(f"right ({self.scoring})", self.answer)]

    def score(self, completion: str, choices: Sequence[Likelihood] = ()) -> Score:
        """Score a reply: its completion, or the likelihoods of its choices."""
        if self.scoring == "number":
            answer, value = final_number(completion) or "", number_match(completion, self.answer)
        else:
            answer, value = extract_answer(completion), exact_match(completion, self.answer)
        return Score(answer, self.answer, value)

    def program(self, completion: str) -> str | None:
        """Return the program that a completion has to pass; None without tests."""
        return None


class ChoicePrompt(Prompt):
    """A multiple choice: `choices` are continuations of the prompt, `choices[gold]` is right.

    Nothing is generated; `answer` is the text of the right choice.
    """

    generates: ClassVar[bool] = False
    max_tokens: int = 0
    stop: list[Text] = []
    scoring: Scoring = "choice"
    choices: list[Text] = Field(min_length=1)
    gold: int = Field(ge=0)

    @property
    def texts(self) -> list[str]:
        """Each choice after the prompt."""
        return [self.prompt + choice for choice in self.choices]

    @property
    def labelled_answers(self) -> list[tuple[str, str]]:
        """All choices."""
        return [
            (f"choice {at}{', the right one' if at == self.gold else ''}", choice)
            for at, choice in enumerate(self.choices)
        ]

    def score(self, completion: str, choices: Sequence[Likelihood] = ()) -> Score:
        """Score the likelihoods of the choices, in their order; none, no score."""
        expected = self.answer.strip()
        if not choices:
            return Score("", expected, None)
        values = [choice.log_likelihood for choice in choices]
        best = likeliest(values)
        best_norm = likeliest(values, [choice.characters for choice in choices])
        return Score(
            answer=self.choices[best].strip(),
            expected=expected,
            value=float(best == self.gold),
            value_norm=float(best_norm == self.gold),
        )


class CodePrompt(Prompt):
    """A program to complete: it must pass `test`, which defines `check(entry_point)`.

    `answer` is a reference solution.
    """

    needs_tests: ClassVar[bool] = True
    scoring: Scoring = "code"
    test: Text
    entry_point: Text

    def score(self, completion: str, choices: Sequence[Likelihood] = ()) -> Score:
        """Return no score yet."""
        return Score(completion, self.answer, None)

    def program(self, completion: str) -> str | None:
        """Return the prompt with its completion, followed by the tests."""
        return f"{self.prompt}{completion}\n{self.test}\ncheck({self.entry_point})\n"
