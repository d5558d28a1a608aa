"""The state of a request that is being served."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from orchestrator.selection import Policy
from services.bs.batch.routing_trace import RoutingTrace
from services.bs.batch.timings import RequestTimes
from services.bs.tracing.spans import RequestTrace


@dataclass
class RequestContext:
    """How a request's experts are selected, and what is recorded about it.

    Attributes:
        policy: the policy in force when the request began; later ones apply to later requests.
        meter: its times and counts.
        trace: which experts each token got; None unless requested.
        spans: when its steps happened; None unless requested.
        untouched: the first layer in which one of its sequences had no expert at all, or None.
    """

    policy: Policy
    meter: RequestTimes = field(default_factory=RequestTimes)
    trace: RoutingTrace | None = None
    spans: RequestTrace | None = None
    untouched: int | None = None


def generator(tokens: Sequence[int], device: torch.device) -> torch.Generator:
    """Return what a policy draws with for a sequence that begins with these tokens.

    It depends on nothing else, so that a repeated request gets the same draws.
    """
    digest = hashlib.sha256(",".join(map(str, tokens)).encode()).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(digest[:8]) >> 1)
