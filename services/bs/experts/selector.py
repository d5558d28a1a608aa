"""Selects a layer's experts: logits, latency and reachability ─► policy ─► RoutingDecision."""

from __future__ import annotations

import time

import numpy as np
import torch

from orchestrator.contracts.channel_state import ChannelState
from orchestrator.moe.latency_model import Floats
from orchestrator.selection import Gate, LatencyPolicy, Policy, drop_unreachable
from services.bs.batch.decision import RoutingDecision
from services.bs.experts.devices import Devices
from services.bs.experts.latency_estimator import LatencyEstimator
from services.net.channel_feed import ChannelFeed


class Selector:
    """The selector of experts; for the engine's thread only."""

    def __init__(self, roster: Devices, channel: ChannelFeed, estimate: LatencyEstimator) -> None:
        self._roster = roster
        self._channel = channel
        self._estimate = estimate
        self._reachable = torch.empty(0)
        self._everyone = False
        self._latency_s: Floats | None = None
        self._masked_s = np.empty(0)
        self._given = torch.empty(0)

    def channel(self) -> ChannelState | None:
        """Return the state in force; read once per layer, as it may change at any moment."""
        return self._channel.current()

    def select(
        self,
        logits: torch.Tensor,
        k: int,
        policy: Policy,
        generator: torch.Generator,
        channel: ChannelState | None,
    ) -> RoutingDecision:
        """Choose among all experts; `logits` is n × E, `k` the number that the model would use."""
        reachable = self._roster.reachable(channel)
        if reachable is not self._reachable:
            self._reachable, self._everyone = reachable, bool(reachable.all())
            self._latency_s = None
        latency_s, given = self._estimate.analytic_s(channel), None
        if isinstance(policy, LatencyPolicy):
            if policy.latency != "analytic":
                tokens, now_s = _tokens(logits, k), time.monotonic()
                latency_s = self._estimate.latency_s(policy.latency, channel, tokens, now_s)
            if latency_s is not self._latency_s:
                self._give(latency_s, logits.device)
            latency_s, given = self._masked_s, self._given
        selected = used = policy.select(Gate(logits, k, given, generator))
        if not self._everyone:
            used = drop_unreachable(selected, logits, reachable.to(logits.device))
        return RoutingDecision(selected, used, logits, latency_s, reachable, channel)

    def _give(self, latency_s: Floats, device: torch.device) -> None:
        """Keep latencies for policies: a device that left is as far away as one in outage.

        Eq. 6 and reachability change less often than layers, and each step here costs as much as a
        step of a policy.
        """
        self._latency_s = latency_s
        self._masked_s = np.where(self._reachable.numpy(), latency_s, np.inf)
        self._given = torch.from_numpy(self._masked_s).to(device)


def _tokens(logits: torch.Tensor, k: int) -> Floats:
    """Return how many of n tokens each device would get from `topk`, shape (E,)."""
    n, experts = logits.shape
    if n == 1:  # one token is all of its message, whichever device gets it
        return np.ones(experts)
    index = logits.topk(k, dim=-1).indices.flatten().cpu().numpy()
    return np.bincount(index, minlength=experts).astype(np.float64)
