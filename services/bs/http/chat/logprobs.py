"""Log-probabilities in the form of chats."""

from __future__ import annotations

from collections.abc import Sequence

from services.bs.engine.request import TokenLogprob
from services.bs.http.chat.answers import NamedLogprob, TokenLogprobs
from services.bs.http.openai.logprobs import finite
from services.bs.text.tokenizer import ModelTokenizer


def of_chat(vocabulary: ModelTokenizer, tokens: Sequence[TokenLogprob]) -> list[TokenLogprobs]:
    """Return the log-probabilities of an answer's tokens."""

    def named(token: int, logprob: float | None) -> NamedLogprob:
        return NamedLogprob(
            token=vocabulary.name(token),
            logprob=finite(logprob),
            bytes=list(vocabulary.bytes_of(token)),
        )

    return [
        TokenLogprobs(
            **dict(named(each.token, each.logprob)),
            top_logprobs=[named(token, logprob) for token, logprob in each.top],
        )
        for each in tokens
    ]
