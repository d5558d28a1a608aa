"""What one request's time went into.

Per layer the devices work in parallel, so a layer's downlink, wait, compute and uplink are those
of the device that answered last. A step's times count in full for every request that takes part:
each has waited for it, and so the parts of a request add up to its end-to-end time.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, fields
from typing import Any


@dataclass
class Times:
    """Sums over layers [s], of one step or of all steps of a request.

    `batched_s` is what Eq. 6 and 7 give when a device gets its n_q tokens of a layer in one
    message, max_q n_q·t_q, whosesoever tokens they are.
    """

    gate_s: float = 0.0
    selection_s: float = 0.0
    downlink_s: float = 0.0
    wait_s: float = 0.0
    compute_s: float = 0.0
    uplink_s: float = 0.0
    combine_s: float = 0.0
    moe_s: float = 0.0
    forward_s: float = 0.0
    batched_s: float = 0.0

    def add(self, other: Times) -> None:
        """Add a step's."""
        for part in _PARTS:
            setattr(self, part, getattr(self, part) + getattr(other, part))


_PARTS = [part.name for part in fields(Times)]


@dataclass
class RequestTimes(Times):
    """A request's times, and what became of its own tokens.

    `eq8_s` is Eq. 8's value. Counts are of tokens: `used` by an expert, `dropped` because the
    device failed or was not there, `outage` because the channel has it out of reach, `deselected`
    by the policy though the gate chose the expert. Messages and overruns are of the messages that
    had tokens of the request in them.
    """

    eq8_s: float = 0.0
    device_messages: int = 0
    overruns: int = 0
    steps: int = 0
    sequences: int = 0
    used: Counter[int] = field(default_factory=Counter)
    dropped: Counter[int] = field(default_factory=Counter)
    outage: Counter[int] = field(default_factory=Counter)
    deselected: Counter[int] = field(default_factory=Counter)

    @property
    def lost(self) -> int:
        """Experts of tokens that were to be used and did not answer, whatever the reason."""
        return self.dropped.total() + self.outage.total()

    def parts(self, queue_s: float, end_to_end_s: float) -> dict[str, Any]:
        """The request's split; `overhead_s` is what no other part accounts for."""
        parts = {
            "queue_s": queue_s,
            "gate_s": self.gate_s,
            "selection_s": self.selection_s,
            "downlink_s": self.downlink_s,
            "compute_s": self.compute_s,
            "uplink_s": self.uplink_s,
            "wait_s": self.wait_s,
            "combine_s": self.combine_s,
            "trunk_s": self.forward_s - self.moe_s,
        }
        return {
            **parts,
            "overhead_s": end_to_end_s - sum(parts.values()),
            "eq8_s": self.eq8_s,
            "batched_s": self.batched_s,
            "batch": self.sequences / self.steps,
            "experts": {
                name: {str(q): n for q, n in sorted(getattr(self, name).items())}
                for name in ("used", "dropped", "outage", "deselected")
            },
            "overruns": self.overruns,
            "device_messages": self.device_messages,
        }
