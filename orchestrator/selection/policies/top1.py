"""Only the heaviest expert."""

from __future__ import annotations

from orchestrator.selection import Gate, Policy, Selection
from orchestrator.selection.policies.topk import heaviest


class Top1(Policy):
    """The expert of largest gate weight alone: the least work that a token can cause."""

    def select(self, gate: Gate) -> Selection:
        """Return the selection of `topk` with all but the first expert dropped."""
        weight, candidates = heaviest(gate)
        first = weight.new_zeros(weight.shape)
        first[:, 0] = 1.0
        index = candidates.masked_fill(first == 0, gate.logits.shape[-1])
        return Selection(index, first, candidates)
