"""Latency first: the gate only limits the experts to choose from."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from orchestrator.selection import Gate, LatencyPolicy, Selection, weights


class Channel(LatencyPolicy):
    """The k experts of least latency among those of largest gate weight, weights renormalised."""

    candidates: Annotated[int, Field(ge=1)] | Literal["2k"] = Field(
        default="2k", description="how many of the heaviest to choose from; never fewer than k"
    )

    def select(self, gate: Gate) -> Selection:
        """Return the experts in the order of their weights; among equally fast ones the heavier."""
        candidates = 2 * gate.k if self.candidates == "2k" else self.candidates
        count = min(max(candidates, gate.k), gate.logits.shape[-1])
        heaviest = gate.logits.float().topk(count, dim=-1).indices
        assert gate.latency_s is not None, "the caller gives a LatencyPolicy its latencies"
        fastest = gate.latency_s[heaviest].argsort(dim=-1, stable=True)[:, : gate.k]
        index = heaviest.gather(-1, fastest.sort(dim=-1).values)
        return Selection(index, weights(gate.logits, index), candidates=index)
