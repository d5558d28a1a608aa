"""The paper's policy: the weight of an expert against its latency (Algorithm 1)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from pydantic import Field

from orchestrator.selection import Gate, LatencyPolicy, Selection
from orchestrator.selection.policies.topk import heaviest, renormalised

if TYPE_CHECKING:
    import torch


class WeightToLatencyRatio(LatencyPolicy):
    """The k experts of largest gate weight, less those whose weight is not worth their latency.

    Algorithm 1 drops the experts of least WLR one after another while κ (Eq. 10) is small enough. κ
    compares with the largest WLR, which is never dropped, so each expert has its own κ and no loop
    is needed: experts with κ up to θ are dropped, at most `max_drops`, the least first, among
    equals the lighter first.
    """

    theta: float = Field(ge=0, le=0.5, description="θ: an expert is dropped when κ ≤ θ")
    strict: bool = Field(default=False, description="drop when κ < θ, as in Algorithm 1")
    max_drops: int = Field(default=1, ge=1, description="experts dropped from a token at most")

    def select(self, gate: Gate) -> Selection:
        """Return the experts in the order of `topk`; without drops also its exact weights."""
        weight, candidates = heaviest(gate)
        assert gate.latency_s is not None, "the caller gives a LatencyPolicy its latencies"
        wlr = ratios(weight, gate.latency_s.take(candidates))
        kappa = kappas(wlr)
        dropped = kappa < self.theta if self.strict else kappa <= self.theta
        # The largest WLR has a κ of exactly 1/2, so it is never dropped for a smaller θ.
        if self.max_drops < gate.k - 1 or self.theta == 0.5:
            dropped &= _least(wlr, min(self.max_drops, gate.k - 1))
        index = candidates
        if dropped.any():
            index = candidates.masked_fill(dropped, gate.logits.shape[-1])
            weight = weight.masked_fill(dropped, 0.0)
        return Selection(index, renormalised(weight), candidates)


def ratios(weight: torch.Tensor, latency_s: torch.Tensor) -> torch.Tensor:
    """Return WLR = w / t, Eq. 9, in the shape of `weight`, and fp64 like `latency_s`.

    0 where t is infinite, infinite where t is 0, and 0 where w is 0 (in fp32) for any t.
    """
    return (weight / latency_s).nan_to_num_(nan=0.0, posinf=math.inf)


def kappas(wlr: torch.Tensor) -> torch.Tensor:
    """Return κ of each expert against the largest WLR, Eq. 10, n × k.

    The least κ of a token is that of the paper. 1/2 if both WLR are infinite, or both 0: they are
    equal.
    """
    return (wlr / (wlr + wlr.amax(dim=-1, keepdim=True))).nan_to_num_(nan=0.5)


def _least(wlr: torch.Tensor, count: int) -> torch.Tensor:
    """Return a mask (n × k) of each token's `count` experts of least WLR, later ones first."""
    ascending = wlr.flip(-1).argsort(dim=-1, stable=True)
    least = wlr.shape[-1] - 1 - ascending[:, :count]
    return wlr.new_zeros(wlr.shape).scatter(-1, least, 1.0) > 0
