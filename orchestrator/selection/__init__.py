"""Expert selection: from gate logits to the experts that are used, and their weights.

A selection is a pair of tensors over a layer's n tokens: `index` (n × k, expert numbers; the number
of experts itself means "none") and `weight` (n × k, sums to 1 over a token's experts).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Selection:
    """Chosen experts and their weights, both n × k."""

    index: torch.Tensor
    weight: torch.Tensor


def topk(logits: torch.Tensor, k: int) -> Selection:
    """The model as published: the k experts of largest gate weight, weights renormalised."""
    gate = torch.softmax(logits.float(), dim=-1)
    weight, index = torch.topk(gate, k, dim=-1)
    return Selection(index, weight / weight.sum(dim=-1, keepdim=True))


def without(selection: Selection, logits: torch.Tensor, reachable: torch.Tensor) -> Selection:
    """Leave out unreachable experts and renormalise; a token left with none gets its best other.

    `logits` is n × E, `reachable` a bool vector of E. With every expert reachable the selection
    comes back as it is, bit for bit. With none reachable, every slot is empty.
    """
    if bool(reachable.all()):
        return selection
    none = reachable.numel()
    kept = reachable[selection.index]
    weight = torch.where(kept, selection.weight, 0.0)
    index = torch.where(kept, selection.index, none)
    if bool(reachable.any()):
        bereft = ~kept.any(dim=-1)
        best = logits.masked_fill(~reachable, -torch.inf).argmax(dim=-1)
        index[bereft, 0] = best[bereft]
        weight[bereft, 0] = 1.0
    total = weight.sum(dim=-1, keepdim=True)
    return Selection(index, torch.where(total > 0, weight / total, 0.0))
