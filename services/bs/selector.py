"""Selects a layer's experts: logits, latency and reachability ─► policy ─► Choice."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import torch

from orchestrator.latency import Floats
from orchestrator.selection import Gate, LatencyPolicy, Policy, Selection, without
from orchestrator.state import ChannelState
from services.bs.estimate import LatencyEstimate
from services.bs.roster import Roster
from services.channel import ChannelFeed


@dataclass(frozen=True)
class Choice:
    """The experts of a layer's n tokens, and on what grounds they were chosen.

    Attributes:
        selected: what the policy selected.
        used: that, less the experts that cannot be reached; what is sent.
        logits: the gate's, n × E.
        latency_s: t_q [s], shape (E,): what the policy was given; of Eq. 6 if it needs none.
        reachable: which experts can be reached, shape (E,), on the CPU.
        channel: the state in force; None before the first.
    """

    selected: Selection
    used: Selection
    logits: torch.Tensor
    latency_s: Floats
    reachable: torch.Tensor
    channel: ChannelState | None


class Selector:
    """Used by the engine's thread only."""

    def __init__(self, roster: Roster, channel: ChannelFeed, estimate: LatencyEstimate) -> None:
        self._roster = roster
        self._channel = channel
        self._estimate = estimate

    def select(
        self, logits: torch.Tensor, k: int, policy: Policy, generator: torch.Generator
    ) -> Choice:
        """Choose among all experts; `logits` is n × E, `k` the number that the model would use."""
        channel = self._channel.current()
        reachable = self._roster.reachable(channel)
        given = None
        if isinstance(policy, LatencyPolicy):
            latency_s = self._latency_s(policy, logits, k, channel)
            # A device that left is as far away as one in outage.
            latency_s = np.where(reachable.numpy(), latency_s, np.inf)
            given = torch.from_numpy(latency_s).to(logits.device, torch.float32)
        else:
            latency_s = self._estimate.analytic_s(channel)
        selected = policy.select(Gate(logits, k, given, generator))
        used = without(selected, logits, reachable.to(logits.device))
        return Choice(selected, used, logits, latency_s, reachable, channel)

    def _latency_s(
        self, policy: LatencyPolicy, logits: torch.Tensor, k: int, channel: ChannelState | None
    ) -> Floats:
        if policy.latency == "analytic":
            return self._estimate.analytic_s(channel)
        n, experts = logits.shape
        tokens = np.ones(experts)  # one token is all of its message, whichever device gets it
        if n > 1:
            best = logits.topk(k, dim=-1).indices.flatten().cpu().numpy()
            tokens = np.bincount(best, minlength=experts).astype(np.float64)
        return self._estimate.latency_s(policy.latency, channel, tokens, time.monotonic())
