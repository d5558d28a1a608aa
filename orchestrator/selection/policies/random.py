"""A baseline that ignores gate and channel."""

from __future__ import annotations

from typing import ClassVar

from orchestrator.selection import Gate, Policy, Selection, weights


class Random(Policy):
    """k experts at random, each as likely as any other, weighted as the gate weighs them."""

    draws: ClassVar[bool] = True

    def select(self, gate: Gate) -> Selection:
        """Return the experts in random order."""
        device = gate.generator.device if gate.generator is not None else gate.logits.device
        draw = gate.logits.new_empty(gate.logits.shape, device=device).float()
        index = draw.uniform_(generator=gate.generator).topk(gate.k, dim=-1).indices
        index = index.to(gate.logits.device)
        return Selection(index, weights(gate.logits, index), candidates=index)
