"""The link rates that runs saw, drawn again from the profile that each has recorded.

A profile's text has the seed, an interval's line its number and when it began: that is all that
the channel depends on.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from orchestrator.errors import InputError
from orchestrator.radio import profiles
from orchestrator.radio.plot import mbps
from orchestrator.radio.profiles import Profile
from orchestrator.report.load import Recorded
from orchestrator.results.schema import Run

# Of more intervals every k-th is computed: each costs up to half a millisecond.
COMPUTED = 10_000


@dataclass(frozen=True, eq=False)
class Rates:
    """Rates from one begin to the next.

    Attributes:
        begin_s: when each interval began [Unix s], (n,).
        mbps: intervals × devices × (down, up); 0 in an outage, NaN where it is not limited.
        lasts_s: how long one interval, or k if only every k-th is here, was to last; None where
            there is only one.
        every: that k.
    """

    begin_s: NDArray[np.float64]
    mbps: NDArray[np.float64]
    lasts_s: float | None
    every: int = 1

    def least_mbps(self, begin_s: float, end_s: float) -> float:
        """The slowest link's rate, averaged over the intervals of a time; 0: one was out."""
        first = max(0, int(np.searchsorted(self.begin_s, begin_s, side="right")) - 1)
        last = max(first + 1, int(np.searchsorted(self.begin_s, end_s)))
        slowest = np.nanmin(self.mbps[first:last], axis=(1, 2), initial=math.inf)
        return float(np.mean(slowest))


def profile_of(run: Run) -> Profile | None:
    """The profile as a run has recorded it.

    None where that is not all of it: the traces that it refers to are not in a run's record.
    """
    channel = run.channel
    try:
        return profiles.parse(channel.profile_text, channel.profile, "run.json")
    except InputError:
        return None


def over_time(runs: Sequence[Recorded]) -> Rates | None:
    """The rates while runs of one profile took place; None if they cannot be known."""
    profile = profile_of(runs[0].run)
    if profile is None:
        return None
    begins = {
        (one.epoch, one.interval): one.apply_at_s for run in runs for one in run.intervals
    }  # the same on every device
    if profile.interval_s is None:  # a draw may have been in force since before its run began
        held = [one.run.channel for one in runs if not one.intervals]
        begins |= {(one.epoch, one.interval): one.apply_at_s for one in held}
    if not begins:
        return None
    ordered = sorted((begin_s, interval) for (_, interval), begin_s in begins.items())
    if profile.interval_s is None and len({interval for _, interval in ordered}) == 1:
        ordered = ordered[:1]  # the same draw, put into force again
    lasts_s = _lasts_s(profile, [begin_s for begin_s, _ in ordered])
    every = math.ceil(len(ordered) / COMPUTED)
    kept = ordered[::every]
    return Rates(
        np.array([begin_s for begin_s, _ in kept]),
        _drawn(runs[0].run, tuple(interval for _, interval in kept)),
        None if lasts_s is None else every * lasts_s,
        every,
    )


def _lasts_s(profile: Profile, begin_s: Sequence[float]) -> float | None:
    """How long an interval is to last; where each request has a draw, the longest that one did."""
    if profile.interval_s is not None:
        return profile.interval_s
    return float(np.diff(begin_s).max()) if len(begin_s) > 1 else None


def _drawn(run: Run, intervals: tuple[int, ...]) -> NDArray[np.float64]:
    return _drawn_of(run.channel.profile_text, run.channel.profile, intervals)


@lru_cache(maxsize=2)  # a group's table and its figure ask for the same
def _drawn_of(text: str, name: str, intervals: tuple[int, ...]) -> NDArray[np.float64]:
    profile = profiles.parse(text, name, "run.json")
    return np.array(
        [
            [(mbps(device, device.down), mbps(device, device.up)) for device in states]
            for states in map(profile.devices, intervals)
        ]
    )
