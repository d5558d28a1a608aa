"""The offset between two clocks whose times share one picture."""

from __future__ import annotations

from typing import TypeVar

Time = TypeVar("Time", int, float)


def shift_into(outer: tuple[Time, Time], inner: tuple[Time, Time]) -> Time:
    """Return what to add to the times of `inner`, of another clock, so that they lie in `outer`.

    Both are (start, end), in nanoseconds (int) or seconds (float), and `inner` happened within
    `outer`. 0 where the times show that; else the clocks differ, and `inner` goes to the middle, as
    in NTP: the times before it and after it are assumed to be equal.
    """
    if outer[0] <= inner[0] and inner[1] <= outer[1]:
        return outer[0] - outer[0]
    twice = outer[0] + outer[1] - inner[0] - inner[1]
    return twice // 2 if isinstance(twice, int) else twice / 2
