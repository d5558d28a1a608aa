"""How far requests have come, for whoever watches: numbers only, never a word of a prompt."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """A request that has not ended.

    Attributes:
        sequences: how many prompts it has.
        prompt_tokens: of all of them together.
        completion_tokens: made so far, of all of them.
        max_tokens: to be made at most, of all of them.
        age_s: since its arrival.
    """

    id: str
    sequences: int
    prompt_tokens: int
    completion_tokens: int
    max_tokens: int
    age_s: float


@dataclass(frozen=True)
class RequestsInProgress:
    """All requests that have not ended, each in the order of arrival; both lists are bounded."""

    running: list[Progress]
    waiting: list[Progress]
