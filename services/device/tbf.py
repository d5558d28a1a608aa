"""The tbf backend, for kernels without netem: rate only.

    radio interface                          ifb-radio
      root 1: tbf  ─► uplink                   root 1: tbf  ─► downlink
      ingress ffff:  ─ u32 match all, mirred ──────┘

What fits the bucket passes at once, so the bucket holds one packet and what accrues while the
kernel's timer is late; a larger one erases the transmission time of an embedding, a smaller one
loses rate to every late timer.
"""

from typing import Any

from orchestrator.state import Direction

NAME = "tbf"
_PACKET_BYTES = 1600
_TIMER_SLACK_S = 100e-6
_LIMIT_BYTES = 1 << 28
# tbf has no "off"; this is faster than any host moves packets between containers.
_UNSHAPED_BPS = 100e9


def qdisc(direction: Direction) -> str:
    """The qdisc for a direction's rate; delay, jitter and loss are beyond this backend."""
    rate = direction.rate_bps or _UNSHAPED_BPS
    burst = _PACKET_BYTES + rate / 8 * _TIMER_SLACK_S
    return f"tbf rate {rate:.0f}bit burst {burst:.0f} limit {_LIMIT_BYTES}"


def rate_bps(options: dict[str, Any]) -> float | None:
    """The rate that `tc -json qdisc show` reports [bit/s]; None: unlimited."""
    rate = 8.0 * options["rate"]
    return rate if rate < _UNSHAPED_BPS else None
