"""The model as published."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.selection import Gate, Policy, Selection

if TYPE_CHECKING:
    import torch


class TopK(Policy):
    """The model as published: the k experts of largest gate weight, weights renormalised."""

    def select(self, gate: Gate) -> Selection:
        """Return the experts in the order of their weights, the largest first."""
        weight, index = heaviest(gate)
        return Selection(index, renormalised(weight), candidates=index)


def heaviest(gate: Gate) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the k largest weights of the gate, fp32, and their experts; n × k, largest first.

    Not renormalised: they sum to less than 1 if there are other experts.
    """
    weight, index = gate.logits.float().softmax(dim=-1).topk(gate.k, dim=-1)
    return weight, index


def renormalised(weight: torch.Tensor) -> torch.Tensor:
    """Return weights (n × k, 0 for experts not used) scaled so that each row sums to 1."""
    return weight / weight.sum(dim=-1, keepdim=True)
