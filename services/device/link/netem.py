"""The netem backend: rate, delay, jitter and Gilbert-Elliott loss, packet by packet.

    radio interface                          ifb-radio
      root 1: tbf ─► uplink                    root 1: tbf ─► downlink
        └─ 10: netem                             └─ 10: netem
      ingress ffff:  ─ u32 match all, mirred ──────┘

The queue waits in front of tbf, where a new rate takes effect at once, for queued packets too.
(With netem's own rate each packet gets its time when it is queued: 270 packets queued at 500 kbit/s
take 4.4 s whatever the rate is changed to.) netem delays what tbf's bucket lets pass at once by
exactly that time, bucket / rate, so that a message of s bytes on the wire takes

    max(s, bucket) / rate + delay           bucket: one packet + 100 µs of the rate, or if more
                                                    400 µs of the rate up to 6000 bytes

as on a link that sends one bit after the other, in any order of messages and pauses. Below
1.4 Mbit/s this delay is limited to 10 ms (messages end early by the rest), because it also applies
to packets that were queued before a change.

A rate change costs the same as with tbf (see tbf.py), and restarts the loss model in its good
state, which shortens a burst under way. netem's own rate limits nothing: it keeps packets in order
under jitter.
"""

from orchestrator.contracts.channel_state import Direction
from services.device.link import tbf
from services.net.radio_interface import MAX_PACKETS

NAME = "netem"
_IN_ORDER_BPS = 100e9
_MAX_HEAD_START_S = 10e-3
# On a fast link, a timer for each packet takes a slow host as long as the packet is on the air. The
# bucket then holds a few packets, but less than a token of Mixtral's (8 KiB), which must take time.
_TIMER_EVERY_S = 400e-6
_MOST_BYTES = 6000


def qdiscs(direction: Direction) -> tuple[str, ...]:
    """Return the tree with every field given: `tc qdisc change` keeps a rate that is left out."""
    rate_bps = direction.rate_bps or tbf.UNSHAPED_BPS
    burst_bytes = _bucket_bytes(rate_bps)
    # The time by which the bucket lets a message end too early.
    head_start_s = 8 * burst_bytes / rate_bps if direction.rate_bps else 0.0
    delay_s = direction.delay_s + min(head_start_s, _MAX_HEAD_START_S)
    return (
        f"root handle 1: {tbf.token_bucket(rate_bps, burst_bytes)}",
        f"parent 1:1 handle 10: netem limit {MAX_PACKETS} rate {_IN_ORDER_BPS:.0f}bit"
        f" delay {delay_s * 1e6:.0f}us {direction.jitter_s * 1e6:.0f}us"
        f" loss gemodel {direction.loss_p:.6%} {direction.loss_r:.6%}",
    )


def _bucket_bytes(rate_bps: float) -> float:
    return max(tbf.bucket_bytes(rate_bps), min(rate_bps / 8 * _TIMER_EVERY_S, _MOST_BYTES))
