"""Log-probabilities of tokens, from the logits."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from services.bs.engine.request import TokenLogprob

# Rows at a time: a log-softmax over all logits of a long prompt would double their memory.
_ROWS = 512


def logprobs(logits: torch.Tensor, tokens: Sequence[int], top: int) -> list[TokenLogprob]:
    """Return those of n tokens, by their logits (n × vocabulary, fp32), before any temperature.

    Each comes with the `top` likeliest alternatives, or with as many as there are.
    """
    scored: list[TokenLogprob] = []
    top = min(top, logits.shape[-1])
    for first in range(0, len(tokens), _ROWS):
        chunk = tokens[first : first + _ROWS]
        values = logits[first : first + _ROWS].log_softmax(dim=-1)
        chosen = values.gather(-1, torch.tensor(chunk)[:, None])[:, 0].tolist()
        best = values.topk(top, dim=-1)
        rows = zip(chunk, chosen, best.indices.tolist(), best.values.tolist(), strict=True)
        scored += [
            TokenLogprob(token, logprob, tuple(zip(others, theirs, strict=True)))
            for token, logprob, others, theirs in rows
        ]
    return scored
