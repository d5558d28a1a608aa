"""Where a request's time goes.

The devices of a layer work in parallel, so its downlink, wait, compute and uplink are those of the
device that answered last. A step's times count in full for every request that takes part: each has
waited for the step, so the parts of a request add up to its end-to-end time.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, fields

from orchestrator.contracts.time_parts import PARTS
from orchestrator.contracts.timings import Experts


@dataclass
class Times:
    """Sums over layers [s], of one step or of all steps of a request.

    `batched_s` is the value of Eq. 6 and 7 when a device gets its n_q tokens of a layer in one
    message: max_q n_q·t_q, over the tokens of all requests.
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
        """Add the times of a step."""
        for part in _PARTS:
            setattr(self, part, getattr(self, part) + getattr(other, part))


_PARTS = [part.name for part in fields(Times)]
_LAYER_PARTS = [part for part in PARTS if part in _PARTS]


@dataclass
class RequestTimes(Times):
    """A request's times, and the outcome of its own tokens.

    `eq8_s` is the value of Eq. 8. Counts are of tokens: `used` by an expert, `dropped` because the
    device failed or was absent, `outage` because the channel puts it out of reach, `deselected` by
    the policy although the gate chose the expert. Messages and overruns count the messages that
    carried tokens of the request.
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
        """Experts of tokens that should have been used and did not answer, for any reason."""
        return self.dropped.total() + self.outage.total()

    def parts(self, queue_s: float, end_to_end_s: float) -> dict[str, float]:
        """Return the split of the latency, PARTS; `overhead_s` is what no other accounts for."""
        known = {
            "queue_s": queue_s,
            "trunk_s": self.forward_s - self.moe_s,
            **{part: getattr(self, part) for part in _LAYER_PARTS},
        }
        return known | {"overhead_s": end_to_end_s - sum(known.values())}

    def experts(self) -> Experts:
        """Return the counts of tokens by device."""
        by_device = {
            name: {str(q): n for q, n in sorted(getattr(self, name).items())}
            for name in ("used", "dropped", "outage", "deselected")
        }
        return Experts(**by_device)
