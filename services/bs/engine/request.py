"""A request to the engine, and the events that the engine delivers for it.

Request ──submit──► engine ──deliver──► Echo? Piece* Finished  (for each sequence, by its index)
                                        End | Failure          (once, last)
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import torch

from orchestrator.contracts.http import RunningRequest
from orchestrator.contracts.timings import Timings
from services.bs.engine.sampling import Sampling
from services.bs.tracing.spans import RequestTrace


@dataclass(frozen=True)
class TokenLogprob:
    """A token, its log-probability given all before it, and the likeliest alternatives to it.

    `top` has as many tokens as the request's `logprobs`, the likeliest first. The first token of a
    sequence follows nothing: its `logprob` is None and its `top` is empty.
    """

    token: int
    logprob: float | None
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True)
class Echo:
    """A prompt's own tokens, if requested: delivered before other events of its sequence."""

    index: int
    tokens: tuple[TokenLogprob, ...]


@dataclass(frozen=True)
class Piece:
    """A token as it is made, with the text that is now final, if any; or text that was held back.

    `made` counts all tokens of its sequence so far; `tokens` has the token, if `logprobs` is set.
    """

    index: int
    text: str
    made: int
    tokens: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True)
class Finished:
    """A sequence of `made` tokens ended: `length` or `stop`.

    `experts_lost` counts the request's experts of tokens so far that faults or outage have cost.
    """

    index: int
    finish_reason: str
    made: int
    experts_lost: int = 0


@dataclass(frozen=True)
class End:
    """The end of a request.

    `logits` has a row for every position, and `routing` is an .npz file, if requested; `trace` is
    the request's, and `experts_lost` is as in the last `Finished`.
    """

    completion_tokens: int
    timings: Timings
    logits: torch.Tensor | None
    routing: bytes | None
    trace: RequestTrace | None = None
    experts_lost: int = 0


@dataclass(frozen=True)
class Failure:
    """The end of a request that got no answer."""

    message: str


Event: TypeAlias = Echo | Piece | Finished | End | Failure


@dataclass
class Request:
    """A request for completions; `deliver` is called from the engine's thread.

    Attributes:
        prompts: one or several sequences of tokens; their common prefix is computed once.
        max_tokens: limit for each sequence; 0 only scores the prompts.
        n: how many sequences to make from each prompt; those of the first prompt come first.
        stop: texts that end a sequence, and are not a part of it.
        stop_tokens: tokens that end a sequence.
        ignore_eos: go on after the model's end tokens.
        logprobs: how many alternatives to return for each token; None: no log-probabilities.
        echo: return the prompts' own tokens too, with log-probabilities if `logprobs` is set.
        want_logits, want_routing: only with a single sequence.
        trace: the recorder of its steps; None: nothing is recorded.
        cancelled: set from any thread when the client no longer waits for the answer.
    """

    id: str
    prompts: list[list[int]]
    max_tokens: int
    sampling: Sampling
    stop: Sequence[str]
    deliver: Callable[[Event], None]
    n: int = 1
    stop_tokens: frozenset[int] = frozenset()
    ignore_eos: bool = False
    logprobs: int | None = None
    echo: bool = False
    want_logits: bool = False
    want_routing: bool = False
    trace: RequestTrace | None = None
    arrived_s: float = field(default_factory=time.monotonic)
    cancelled: bool = False

    @property
    def positions(self) -> int:
        """Positions of keys and values, at most, to make its sequences one after another."""
        beginning = len(self.prompts[0]) if len(self.prompts) * self.n > 1 else 0
        return beginning + max(map(len, self.prompts)) + self.max_tokens

    def progress(self, made: int = 0) -> RunningRequest:
        """How far it has come, with so many tokens made."""
        sequences = len(self.prompts) * self.n
        return RunningRequest(
            id=self.id,
            sequences=sequences,
            prompt_tokens=sum(map(len, self.prompts)),
            completion_tokens=made,
            max_tokens=sequences * self.max_tokens,
            age_s=time.monotonic() - self.arrived_s,
        )


class FullError(Exception):
    """The queue of waiting requests is full."""


class TooLargeError(Exception):
    """A request does not fit in memory, even alone."""
