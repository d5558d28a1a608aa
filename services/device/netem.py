"""The netem backend: rate, delay, jitter and Gilbert-Elliott loss, packet by packet.

    radio interface                          ifb-radio
      root 1: netem  ─► uplink                 root 1: netem  ─► downlink
      ingress ffff:  ─ u32 match all, mirred ──────┘

netem serialises every packet at the rate, so that the transmission time of a single embedding is
there; a token bucket would let it pass at once.
"""

from typing import Any

from orchestrator.state import Direction

NAME = "netem"
# Packets, not bytes; the default of 1000 drops in the middle of one long prompt.
_LIMIT = 200_000


def qdisc(direction: Direction) -> str:
    """The qdisc with every field given: `tc qdisc change` keeps a rate that is left out."""
    return (
        f"netem limit {_LIMIT} rate {round(direction.rate_bps or 0)}bit"
        f" delay {direction.delay_s * 1e6:.0f}us {direction.jitter_s * 1e6:.0f}us"
        f" loss gemodel {direction.loss_p:.6%} {direction.loss_r:.6%}"
    )


def rate_bps(options: dict[str, Any]) -> float | None:
    """The rate that `tc -json qdisc show` reports [bit/s]; None: unlimited."""
    rate = options.get("rate", {}).get("rate", 0)
    return 8.0 * rate or None
