"""What HTTP asks of the engine, and what the engine tells as it goes.

Request ──submit──► engine ──deliver──► Echo? Piece* Finished  (of each sequence, by its index)
                                        End | Failure          (once, last)
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import torch

from services.bs.engine.progress import Progress
from services.bs.engine.sampling import Sampling
from services.bs.tracing.spans import RequestTrace


@dataclass(frozen=True)
class TokenLogprob:
    """A token, its log-probability given all before it, and the likeliest alternatives to it.

    `logprob` is None of a sequence's first token, which nothing comes before; then `top` is empty.
    `top` has the `logprobs` likeliest tokens that were asked for, the likeliest first.
    """

    token: int
    logprob: float | None
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True)
class Echo:
    """A prompt's own tokens, if they were asked for: before anything else of its sequence."""

    index: int
    tokens: tuple[TokenLogprob, ...]


@dataclass(frozen=True)
class Piece:
    """A token as it is made: text that is certain now, maybe none; or text that was held back.

    `made` counts all tokens of its sequence so far; `tokens` has the token, if `logprobs` is set.
    """

    index: int
    text: str
    made: int
    tokens: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True)
class Finished:
    """A sequence of `made` tokens ended: `length` or `stop`.

    `experts_lost` is the request's so far: tokens' experts whose devices failed or were not there.
    """

    index: int
    finish_reason: str
    made: int
    experts_lost: int = 0


@dataclass(frozen=True)
class End:
    """The end of a request.

    `logits` has a row for every position, `routing` is an .npz file, if they were asked for;
    `trace` is the request's, and `experts_lost` as the last `Finished` has it.
    """

    completion_tokens: int
    timings: dict[str, Any]
    logits: torch.Tensor | None
    routing: bytes | None
    trace: RequestTrace | None = None
    experts_lost: int = 0


@dataclass(frozen=True)
class Failure:
    """A request that got no answer."""

    message: str


Event: TypeAlias = Echo | Piece | Finished | End | Failure


@dataclass
class Request:
    """Completions to make; `deliver` is called from the engine's thread.

    Attributes:
        prompts: one or several sequences of tokens. What all of them begin with is computed once.
        max_tokens: to make of each; 0 only scores the prompts.
        n: how many sequences to make from each prompt; those of the first prompt come first.
        stop: texts that end a sequence, and are not a part of it.
        stop_tokens: tokens that do.
        ignore_eos: go on after the model's own end.
        logprobs: how many alternatives to tell for each token; None: no log-probabilities.
        echo: tell the prompts' own tokens too; their log-probabilities, if `logprobs` is set.
        want_logits, want_routing: only with a single sequence.
        trace: what is to record when its steps happened; None: nothing is recorded.
        cancelled: set from any thread when nobody waits for the answer any more.
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
        """Of keys and values, at most, that it needs to make one sequence after another."""
        beginning = len(self.prompts[0]) if len(self.prompts) * self.n > 1 else 0
        return beginning + max(map(len, self.prompts)) + self.max_tokens

    def progress(self, made: int = 0) -> Progress:
        """How far it has come, with so many tokens made."""
        sequences = len(self.prompts) * self.n
        return Progress(
            self.id,
            sequences,
            sum(map(len, self.prompts)),
            made,
            sequences * self.max_tokens,
            time.monotonic() - self.arrived_s,
        )


class FullError(Exception):
    """The queue of waiting requests is full."""


class TooLargeError(Exception):
    """A request has no room in memory, whoever else is served."""
