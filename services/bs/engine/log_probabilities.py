"""Log-probabilities of tokens, from the logits."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from services.bs.engine.request import TokenLogprob

# Rows at a time: a log-softmax of all of a long prompt's would take as much memory again as those.
_ROWS = 512


def logprobs(logits: torch.Tensor, tokens: Sequence[int], top: int) -> list[TokenLogprob]:
    """Of n tokens, each by its row of logits (n × vocabulary, fp32), before any temperature.

    `top` likeliest alternatives are told with each, as many as there are.
    """
    told: list[TokenLogprob] = []
    top = min(top, logits.shape[-1])
    for first in range(0, len(tokens), _ROWS):
        some = tokens[first : first + _ROWS]
        values = logits[first : first + _ROWS].log_softmax(dim=-1)
        own = values.gather(-1, torch.tensor(some)[:, None])[:, 0].tolist()
        best = values.topk(top, dim=-1)
        rows = zip(some, own, best.indices.tolist(), best.values.tolist(), strict=True)
        told += [
            TokenLogprob(token, logprob, tuple(zip(others, theirs, strict=True)))
            for token, logprob, others, theirs in rows
        ]
    return told
