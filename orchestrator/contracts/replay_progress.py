"""The progress of the running replay, as its client reports it."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

MAX_BYTES = 4096
MAX_NAME = 256


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("allowed: printable characters")
    return text


_Count = Annotated[int, Field(ge=0, lt=2**53)]


class Progress(BaseModel):
    """The body of `POST /replay`: the outcomes so far of one run's requests.

    Attributes:
        prompts: the set's name.
        done: requests ended, the failed ones too.
        scored: those with a score, which is from 0 to 1; `score_sum` is the sum of these.
        running: whether more is to come.
    """

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")

    prompts: Annotated[str, Field(min_length=1, max_length=MAX_NAME), AfterValidator(_printable)]
    planned: _Count
    done: _Count
    failed: _Count
    scored: _Count
    score_sum: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    running: bool

    @model_validator(mode="after")
    def _is_of_one_run(self) -> Progress:
        if not self.failed + self.scored <= self.done <= self.planned:
            raise ValueError("allowed: failed + scored <= done <= planned")
        if self.score_sum > self.scored:
            raise ValueError("allowed: score_sum <= scored")
        return self

    @property
    def accuracy(self) -> float | None:
        """The mean score; None before the first."""
        return self.score_sum / self.scored if self.scored else None
