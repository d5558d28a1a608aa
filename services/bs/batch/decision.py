"""A routing decision: the experts of a layer's tokens, and what it was based on."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from orchestrator.contracts.channel_state import ChannelState
from orchestrator.moe.latency_model import Floats
from orchestrator.selection import Selection


class RoutingDecision(NamedTuple):
    """The experts of a layer's n tokens, and what the choice was based on.

    Attributes:
        selected: what the policy selected.
        used: `selected` without the experts that cannot be reached; what is sent.
        logits: the gate's, n × E.
        latency_s: t_q [s], shape (E,): the policy's input; by Eq. 6 if it needs none.
        reachable: which experts can be reached, shape (E,), on the CPU.
        channel: the channel state in force; None before the first.
    """

    selected: Selection
    used: Selection
    logits: torch.Tensor
    latency_s: Floats
    reachable: torch.Tensor
    channel: ChannelState | None

    def wanted(self) -> NDArray[np.bool_]:
        """Return which tokens (n,) the policy gave an expert, reachable or not."""
        selected = self.selected.index.cpu().numpy() < len(self.reachable)
        return np.asarray(selected.any(axis=1))
