"""Two clocks that meet in one picture."""

from __future__ import annotations


def shift_into(outer: tuple[int, int], inner: tuple[int, int]) -> int:
    """What to add to the times of `inner`, told by another clock, so that they lie in `outer`.

    Both are (start, end) [ns], and `inner` happened within `outer`. 0 where that shows already;
    else the clocks differ, and `inner` goes to the middle, as by NTP: what was before it and what
    was after it are taken to be as long as each other.
    """
    if outer[0] <= inner[0] and inner[1] <= outer[1]:
        return 0
    return (outer[0] + outer[1] - inner[0] - inner[1]) // 2
