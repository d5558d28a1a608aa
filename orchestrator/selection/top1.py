"""The heaviest expert alone."""

from __future__ import annotations

from orchestrator.selection import Gate, Policy, Selection
from orchestrator.selection.topk import TopK


class Top1(Policy):
    """The expert of largest gate weight alone: the least work that a token can cause."""

    def select(self, gate: Gate) -> Selection:
        """`topk` with all but the first dropped."""
        chosen = TopK().select(gate)
        first = chosen.weight.new_zeros(chosen.weight.shape)
        first[:, 0] = 1.0
        index = chosen.index.masked_fill(first == 0, gate.logits.shape[-1])
        return Selection(index, first, chosen.candidates)
