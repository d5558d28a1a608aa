"""A sequence of a request, from its prompt to its last token."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch

from services.bs.engine.log_probabilities import logprobs
from services.bs.engine.prefill import Prefill
from services.bs.engine.request import Echo, Finished, Piece, Request, TokenLogprob
from services.bs.engine.sampling import Draw
from services.bs.text.detokenizer import IncrementalDetokenizer


@dataclass(frozen=True)
class Language:
    """The meaning of tokens: their text, and which of them end a completion."""

    decode: Callable[[Sequence[int]], str]
    ends: frozenset[int]


@dataclass
class Scored:
    """The tokens of an echo so far, and the logits (1 × vocabulary) of the token after them."""

    tokens: list[TokenLogprob] = field(default_factory=list)
    after: torch.Tensor | None = None

    def extend(self, ids: Sequence[int], logits: torch.Tensor, top: int | None) -> Scored:
        """Return the echo with more tokens; `logits` has a row for each of them.

        `top` is the number of alternatives; None: no log-probabilities, and `logits` is not used.
        """
        if top is None:
            return Scored([*self.tokens, *map(_unscored, ids)])
        if self.after is None:
            added = [_unscored(ids[0]), *logprobs(logits[:-1], ids[1:], top)]
        else:
            added = logprobs(torch.cat([self.after, logits[:-1]]), ids, top)
        return Scored([*self.tokens, *added], logits[-1:].clone())


class TokenSequence:
    """A sequence in the making; used by the engine's thread only.

    Its events go to the request's `deliver`.

    Attributes:
        part: its next tokens.
        finished: no more tokens are made.
        made: tokens made so far.
        rows: the logits of every step, if requested.
    """

    def __init__(self, request: Request, index: int, prefill: Prefill, language: Language) -> None:
        """`prefill` has the tokens of its prompt after the shared prefix."""
        self.part = prefill.part
        self.finished = False
        self.made = 0
        self.rows: list[torch.Tensor] = []
        self._request = request
        self._index = index
        self._text = IncrementalDetokenizer(
            language.decode, request.stop, request.sampling.min_tokens
        )
        ends: frozenset[int] = frozenset() if request.ignore_eos else language.ends
        self._ends = ends | request.stop_tokens
        number, choice = divmod(index, request.n)
        prompt, most = request.prompts[number], request.max_tokens
        self._draw = Draw(request.sampling, prompt, most, self._ends, choice)
        self._prefill: Prefill | None = prefill
        self._scored: Scored | None = None

    @property
    def prefills(self) -> bool:
        """Whether its next tokens belong to its prompt."""
        return self._prefill is not None

    def take(self, before: Scored) -> None:
        """Process a step's logits; `before` has the echo of the shared prefix."""
        logits, request = self.part.logits, self._request
        if request.want_logits:
            self.rows.append(logits.clone())  # a copy, so that the step's logits can be freed
        if self._prefill is not None:
            scored = self._scored or before
            if request.echo:
                scored = scored.extend(self.part.ids, logits, request.logprobs)
            if not self._prefill.is_last:
                self._scored = scored
                self._prefill.advance()
                return
            self._prefill = self._scored = None
            if request.echo:
                request.deliver(Echo(self._index, tuple(scored.tokens)))
            if request.max_tokens == 0:
                self._finish("length")
                return
        token = self._draw(logits[-1])
        self.made += 1
        ends = token in self._ends
        likely: list[TokenLogprob] = []
        if request.logprobs is not None:
            likely = logprobs(logits[-1:], [token], request.logprobs)
        # Without text too: a stream shows when each token was made, not when its text was final.
        text = "" if ends else self._text.add(token)
        request.deliver(Piece(self._index, text, self.made, tuple(likely)))
        if ends or self._text.stopped:
            self._finish("stop")
        elif self.made == request.max_tokens:
            self._finish("length")
        else:
            self.part.ids, self.part.wanted = [token], 1

    def _finish(self, reason: str) -> None:
        if rest := self._text.rest():
            self._request.deliver(Piece(self._index, rest, self.made))
        lost = self.part.serving.meter.lost
        self._request.deliver(Finished(self._index, reason, self.made, lost))
        self.finished = True


def _unscored(token: int) -> TokenLogprob:
    return TokenLogprob(token, None)
