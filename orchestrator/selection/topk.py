"""The model as published."""

from __future__ import annotations

from orchestrator.selection import Gate, Policy, Selection


class TopK(Policy):
    """The model as published: the k experts of largest gate weight, weights renormalised."""

    def select(self, gate: Gate) -> Selection:
        """In the order of their weights, the largest first."""
        gate_weight = gate.logits.float().softmax(dim=-1)
        weight, index = gate_weight.topk(gate.k, dim=-1)
        return Selection(index, weight / weight.sum(dim=-1, keepdim=True), candidates=index)
