"""Which experts a layer's tokens are routed to, and on what grounds."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from orchestrator.contracts.channel_state import ChannelState
from orchestrator.moe.latency_model import Floats
from orchestrator.selection import Selection


class RoutingDecision(NamedTuple):
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

    def wanted(self) -> NDArray[np.bool_]:
        """Which tokens (n,) the policy gave an expert, whether or not it can be reached."""
        selected = self.selected.index.cpu().numpy() < len(self.reachable)
        return np.asarray(selected.any(axis=1))
