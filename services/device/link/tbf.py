"""The tbf backend, for kernels without netem: rate only.

    radio interface                          ifb-radio
      root 1: tbf ─► uplink                    root 1: tbf ─► downlink
      ingress ffff:  ─ u32 match all, mirred ──────┘

What fits the bucket passes at once, so the bucket holds one packet and what accrues while the
kernel's timer is late; a larger one would erase the transmission time of an embedding, a smaller
one would lose rate to every late timer. A message of s bytes on the wire takes (s - bucket) / rate.

A new rate takes effect at once, for queued packets too (see qdisc_kick.py). The kernel fills the
bucket at every change, but a busy link gains only what the bucket holds beyond the packet at its
head: 20 changes a second of a backlogged link gave 0.1 % more at 5 Mbit/s and 0.4 % at 20 Mbit/s,
and 20 changes a second between 5 and 20 Mbit/s 1.7 %.
"""

from typing import Any

from orchestrator.contracts.channel_state import Direction
from services.net.radio_interface import MAX_PACKETS

NAME = "tbf"
_PACKET_BYTES = 1600
_TIMER_SLACK_S = 100e-6
_LIMIT_BYTES = MAX_PACKETS * _PACKET_BYTES
# tbf has no "off"; this is faster than any host moves packets between containers.
UNSHAPED_BPS = 100e9


def qdiscs(direction: Direction) -> tuple[str, ...]:
    """Return the tree for a direction's rate; this backend has no delay, jitter or loss."""
    rate_bps = direction.rate_bps or UNSHAPED_BPS
    return (f"root handle 1: {token_bucket(rate_bps, bucket_bytes(rate_bps))}",)


def token_bucket(rate_bps: float, burst_bytes: float) -> str:
    """Return the qdisc that limits to a rate [bit/s], with a bucket of `burst_bytes`."""
    return f"tbf rate {rate_bps:.0f}bit burst {burst_bytes:.0f} limit {_LIMIT_BYTES}"


def bucket_bytes(rate_bps: float) -> float:
    """Return what passes at once after a pause [byte]."""
    return _PACKET_BYTES + rate_bps / 8 * _TIMER_SLACK_S


def rate_bps(options: dict[str, Any]) -> float | None:
    """Return the rate that `tc -json qdisc show` reports [bit/s]; None: unlimited."""
    rate = 8.0 * options["rate"]
    return rate if rate < UNSHAPED_BPS else None
