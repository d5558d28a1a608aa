"""The gate's weights over fewer experts: those that a policy kept, or that can be reached."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from orchestrator.selection.policy import Selection

if TYPE_CHECKING:
    import torch


def weights(logits: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """The gate's weights renormalised over the experts in index (n × k), fp32; 0 for "none".

    A softmax over their logits alone: the same, and of use where every weight is too small for it.
    A row without any expert is not a number.
    """
    none = index == logits.shape[-1]
    chosen = logits.float().gather(-1, index.masked_fill(none, 0))
    return chosen.masked_fill(none, -math.inf).softmax(-1)


def drop_unreachable(
    selection: Selection, logits: torch.Tensor, reachable: torch.Tensor
) -> Selection:
    """Leave out unreachable experts and renormalise; a token left with none gets its best other.

    `logits` is n × E, `reachable` a bool vector of E. With every expert reachable the selection
    comes back as it is, and so do rows that lose none, bit for bit. With none reachable, every slot
    is empty.
    """
    if bool(reachable.all()):
        return selection
    none = reachable.numel()
    usable = reachable.new_zeros(none + 1)
    usable[:none] = reachable
    index = selection.index.masked_fill(~usable[selection.index], none)
    candidates = selection.candidates.clone()
    if bool(reachable.any()):
        bereft = (index == none).all(dim=-1)
        best = logits.masked_fill(~reachable, -math.inf).argmax(dim=-1)[bereft]
        # In a slot of its own if it was a candidate that the policy had dropped, else in the first.
        slot = (candidates[bereft] == best[:, None]).int().argmax(dim=-1)
        index[bereft, slot] = candidates[bereft, slot] = best
    lost_none = (index == selection.index).all(dim=-1, keepdim=True)
    weight = selection.weight.where(lost_none, weights(logits, index)).masked_fill(index == none, 0)
    return Selection(index, weight, candidates)
