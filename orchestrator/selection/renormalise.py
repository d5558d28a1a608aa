"""The gate's weights over a subset of experts: those that a policy kept, or that are reachable."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from orchestrator.selection.policy import Selection

if TYPE_CHECKING:
    import torch


def weights(logits: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """Return the gate's weights renormalised over the experts in `index` (n × k), fp32.

    0 for "none". A softmax over their logits only: the same values, and valid even where every
    weight underflows. A row without any expert is NaN.
    """
    none = index == logits.shape[-1]
    chosen = logits.float().gather(-1, index.masked_fill(none, 0))
    return chosen.masked_fill(none, -math.inf).softmax(-1)


def drop_unreachable(
    selection: Selection, logits: torch.Tensor, reachable: torch.Tensor
) -> Selection:
    """Drop unreachable experts and renormalise; a token left without any gets its best other.

    `logits` is n × E, `reachable` a bool vector of E. If every expert is reachable, the selection
    is returned unchanged; rows that lose none are unchanged bit for bit. If none is reachable,
    every slot is empty.
    """
    if bool(reachable.all()):
        return selection
    none = reachable.numel()
    usable = reachable.new_zeros(none + 1)
    usable[:none] = reachable
    index = selection.index.masked_fill(~usable[selection.index], none)
    candidates = selection.candidates.clone()
    if bool(reachable.any()):
        empty = (index == none).all(dim=-1)
        best = logits.masked_fill(~reachable, -math.inf).argmax(dim=-1)[empty]
        # In its original slot if it was a candidate that the policy dropped, else in the first.
        slot = (candidates[empty] == best[:, None]).int().argmax(dim=-1)
        index[empty, slot] = candidates[empty, slot] = best
    lost_none = (index == selection.index).all(dim=-1, keepdim=True)
    weight = selection.weight.where(lost_none, weights(logits, index)).masked_fill(index == none, 0)
    return Selection(index, weight, candidates)
