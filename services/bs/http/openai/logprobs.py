"""Log-probabilities in OpenAI's formats: one for completions, another for chats."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from services.bs.engine.request import TokenLogprob
from services.bs.text.tokenizer import ModelTokenizer

_LEAST = -9999.0  # in place of minus infinity, which JSON does not have


def of_completion(
    vocabulary: ModelTokenizer, tokens: Sequence[TokenLogprob], offsets: Sequence[int]
) -> dict[str, list[Any]]:
    """Return lists as long as `tokens`; `offsets` are the characters at which these begin.

    Of two alternatives with the same name, the likelier one's value is returned.
    """
    return {
        "tokens": [vocabulary.name(each.token) for each in tokens],
        "token_logprobs": [_finite(each.logprob) for each in tokens],
        "top_logprobs": [_by_name(vocabulary, each) for each in tokens],
        "text_offset": list(offsets),
    }


def _by_name(vocabulary: ModelTokenizer, each: TokenLogprob) -> dict[str, float | None] | None:
    """Return the likeliest tokens, and always the token itself."""
    if each.logprob is None:
        return None
    shown: dict[str, float | None] = {}
    for token, logprob in (*each.top, (each.token, each.logprob)):
        shown.setdefault(vocabulary.name(token), _finite(logprob))
    return shown


def of_chat(vocabulary: ModelTokenizer, tokens: Sequence[TokenLogprob]) -> dict[str, Any]:
    """Return the log-probabilities of an answer's tokens."""
    content = [
        _named(vocabulary, each.token, each.logprob)
        | {"top_logprobs": [_named(vocabulary, token, logprob) for token, logprob in each.top]}
        for each in tokens
    ]
    return {"content": content, "refusal": None}


def _named(vocabulary: ModelTokenizer, token: int, logprob: float | None) -> dict[str, Any]:
    return {
        "token": vocabulary.name(token),
        "logprob": _finite(logprob),
        "bytes": list(vocabulary.bytes_of(token)),
    }


def _finite(logprob: float | None) -> float | None:
    return None if logprob is None else max(logprob, _LEAST)
