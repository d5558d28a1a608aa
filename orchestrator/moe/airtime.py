"""Airtime of a message: segmented by TCP/IP, over a link whose rate changes during the transfer."""

from __future__ import annotations

import math
from collections.abc import Sequence

# An IP packet of 1500 bytes carries 1448 of data (40 are headers, 12 timestamps), and a queue adds
# 14 bytes of Ethernet header.
SEGMENT_BYTES = 1448
HEADER_BYTES = 66


def packets(stream_bytes: int) -> int:
    """Return the number of segments: the full ones, and one for the rest."""
    return -(-stream_bytes // SEGMENT_BYTES)


def wire_bits(stream_bytes: int) -> int:
    """Return the bits that a queue serialises for `stream_bytes` handed to TCP."""
    return 8 * (stream_bytes + packets(stream_bytes) * HEADER_BYTES)


def airtime_s(bits: float, start_s: float, schedule: Sequence[tuple[float, float | None]]) -> float:
    """Return the seconds from `start_s` until a link has sent `bits`.

    Args:
        bits: size of the message; queued bits continue at each new rate immediately.
        start_s: start of the transfer, in the clock of the schedule.
        schedule: (start time, rate in bit/s; None: not limited), in order of time, the first
            not after `start_s`; the last rate holds for ever.
    """
    elapsed_s = 0.0
    for number, (_, rate_bps) in enumerate(schedule):
        last = number + 1 == len(schedule)
        until_s = math.inf if last else schedule[number + 1][0] - start_s
        if until_s <= elapsed_s:
            continue
        if rate_bps is None:
            return elapsed_s
        if elapsed_s + bits / rate_bps <= until_s:
            return elapsed_s + bits / rate_bps
        bits -= (until_s - elapsed_s) * rate_bps
        elapsed_s = until_s
    raise ValueError("an empty schedule")
