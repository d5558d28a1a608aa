"""How long a message is on the air: as TCP/IP segments it, and as the rate changes meanwhile."""

from __future__ import annotations

import math
from collections.abc import Sequence

# A segment of 1500 bytes of IP carries 1448 of data (40 of headers, 12 of timestamps), and a queue
# counts 14 of Ethernet with it.
SEGMENT_BYTES = 1448
HEADER_BYTES = 66


def packets(stream_bytes: int) -> int:
    """Full segments, and one for the rest."""
    return -(-stream_bytes // SEGMENT_BYTES)


def wire_bits(stream_bytes: int) -> int:
    """Bits that a queue serialises for `stream_bytes` given to TCP."""
    return 8 * (stream_bytes + packets(stream_bytes) * HEADER_BYTES)


def airtime_s(bits: float, start_s: float, schedule: Sequence[tuple[float, float | None]]) -> float:
    """Seconds from `start_s` until a link has sent `bits`.

    Args:
        bits: what there is to send; what is queued goes on at each new rate at once.
        start_s: when the sending starts, in the clock of the schedule.
        schedule: (from when on, rate in bit/s; None: not limited), in order of time, the first
            not after `start_s`; the last rate holds for ever.
    """
    passed_s = 0.0
    for number, (_, rate_bps) in enumerate(schedule):
        last = number + 1 == len(schedule)
        until_s = math.inf if last else schedule[number + 1][0] - start_s
        if until_s <= passed_s:
            continue
        if rate_bps is None:
            return passed_s
        if passed_s + bits / rate_bps <= until_s:
            return passed_s + bits / rate_bps
        bits -= (until_s - passed_s) * rate_bps
        passed_s = until_s
    raise ValueError("an empty schedule")
