"""Log-probabilities in the form of /v1/completions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from orchestrator.contracts.openai import Logprobs
from services.bs.engine.request import TokenLogprob
from services.bs.text.tokenizer import ModelTokenizer

_LEAST = -9999.0  # in place of minus infinity, which JSON does not have


def of_completion(
    vocabulary: ModelTokenizer, tokens: Sequence[TokenLogprob], offsets: Sequence[int]
) -> Logprobs:
    """Return lists as long as `tokens`; `offsets` are the characters at which these begin.

    Of two alternatives with the same name, the likelier one's value is returned.
    """
    return Logprobs(
        tokens=[vocabulary.name(each.token) for each in tokens],
        token_logprobs=[finite(each.logprob) for each in tokens],
        top_logprobs=[_by_name(vocabulary, each) for each in tokens],
        text_offset=list(offsets),
    )


def joined(parts: Iterable[Logprobs | None]) -> Logprobs:
    """Return the log-probabilities of a text, from those of its parts."""
    known = [part for part in parts if part is not None]
    return Logprobs(
        tokens=[each for part in known for each in part.tokens],
        token_logprobs=[each for part in known for each in part.token_logprobs],
        top_logprobs=[each for part in known for each in part.top_logprobs],
        text_offset=[each for part in known for each in part.text_offset],
    )


def _by_name(vocabulary: ModelTokenizer, each: TokenLogprob) -> dict[str, float | None] | None:
    """Return the likeliest tokens, and always the token itself."""
    if each.logprob is None:
        return None
    shown: dict[str, float | None] = {}
    for token, logprob in (*each.top, (each.token, each.logprob)):
        shown.setdefault(vocabulary.name(token), finite(logprob))
    return shown


def finite(logprob: float | None) -> float | None:
    """Return a log-probability as JSON can have it."""
    return None if logprob is None else max(logprob, _LEAST)
