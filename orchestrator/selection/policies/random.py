"""A baseline that asks neither gate nor channel."""

from __future__ import annotations

from typing import ClassVar

from orchestrator.selection import Gate, Policy, Selection, weights


class Random(Policy):
    """k experts at random, each as likely as any other, weighted as the gate weighs them."""

    draws: ClassVar[bool] = True

    def select(self, gate: Gate) -> Selection:
        """In random order."""
        drawn_on = gate.generator.device if gate.generator is not None else gate.logits.device
        draw = gate.logits.new_empty(gate.logits.shape, device=drawn_on).float()
        index = draw.uniform_(generator=gate.generator).topk(gate.k, dim=-1).indices
        index = index.to(gate.logits.device)
        return Selection(index, weights(gate.logits, index), candidates=index)
