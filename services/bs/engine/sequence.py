"""One of a request's sequences, from its prompt to the last token made for it."""

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
    """What tokens mean: their text, and which of them end a completion."""

    decode: Callable[[Sequence[int]], str]
    ends: frozenset[int]


@dataclass
class Scored:
    """Tokens that an echo begins with, and the logits (1 × vocabulary) of what follows them."""

    tokens: list[TokenLogprob] = field(default_factory=list)
    after: torch.Tensor | None = None

    def extend(self, ids: Sequence[int], logits: torch.Tensor, top: int | None) -> Scored:
        """With more tokens, and the logits of each position from the first of these on.

        `top` is how many alternatives are told; None: no log-probabilities, and no use of logits.
        """
        if top is None:
            return Scored([*self.tokens, *map(_unscored, ids)])
        if self.after is None:
            told = [_unscored(ids[0]), *logprobs(logits[:-1], ids[1:], top)]
        else:
            told = logprobs(torch.cat([self.after, logits[:-1]]), ids, top)
        return Scored([*self.tokens, *told], logits[-1:].clone())


class TokenSequence:
    """Used by the engine's thread only; gives its events to the request's `deliver`.

    Attributes:
        part: its next tokens.
        finished: nothing more is made.
        made: tokens made so far.
        rows: the logits of every step, if they are wanted.
    """

    def __init__(self, request: Request, index: int, prefill: Prefill, language: Language) -> None:
        """`prefill` has the tokens of its prompt that no other sequence brings."""
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
        """Whether its next tokens are of its prompt."""
        return self._prefill is not None

    def take(self, before: Scored) -> None:
        """Go on after a step; `before` has the tokens of its prompt that are not its own."""
        logits, request = self.part.logits, self._request
        if request.want_logits:
            self.rows.append(logits.clone())  # of the step's, which then need not be kept
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
        # Without text too: a stream shows when each token was made, not when its text was certain.
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
