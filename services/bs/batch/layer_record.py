"""One layer of a forward batch as it ran, which metrics, the batch and traces are booked from.

entered │ messages read │ gate │ selection │ dispatch, devices │ combination │ left
        gate_at_s       gated  selected                        answered      left
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from services.bs.batch.decision import RoutingDecision
from services.bs.batch.expert_call import ExpertCall


@dataclass
class LayerRecord:
    """A layer's decisions, calls and times [s, monotonic].

    Attributes:
        decisions: one for each policy group of the batch.
        calls: those that were sent, by device; one without an output was given up.
        unsent: those whose device was unreachable.
    """

    number: int
    decisions: list[RoutingDecision] = field(default_factory=list)
    calls: list[ExpertCall] = field(default_factory=list)
    unsent: list[ExpertCall] = field(default_factory=list)
    entered_s: float = field(default_factory=time.monotonic)
    gate_at_s: float = 0.0
    gated_s: float = 0.0
    selected_s: float = 0.0
    answered_s: float = 0.0
    left_s: float = 0.0
