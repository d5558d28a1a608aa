"""The link rates during runs, recomputed from the profile that each run recorded.

The channel depends only on the profile's text, which has the seed, and on the number and start of
each recorded interval.
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

# With more intervals, every k-th is computed: each costs up to half a millisecond.
COMPUTED = 10_000


@dataclass(frozen=True, eq=False)
class Rates:
    """Rates from the start of one interval to the next.

    Attributes:
        begin_s: start of each interval [Unix s], (n,).
        mbps: intervals × devices × (down, up); 0 in an outage, NaN where not limited.
        lasts_s: nominal length of one interval, or of k if only every k-th is included; None if
            there is only one.
        every: k.
    """

    begin_s: NDArray[np.float64]
    mbps: NDArray[np.float64]
    lasts_s: float | None
    every: int = 1

    def least_mbps(self, begin_s: float, end_s: float) -> float:
        """Return the rate of the slowest link, averaged over intervals; 0 in an outage."""
        first = max(0, int(np.searchsorted(self.begin_s, begin_s, side="right")) - 1)
        last = max(first + 1, int(np.searchsorted(self.begin_s, end_s)))
        slowest = np.nanmin(self.mbps[first:last], axis=(1, 2), initial=math.inf)
        return float(np.mean(slowest))


def profile_of(run: Run) -> Profile | None:
    """Return the profile that a run recorded.

    None if it refers to traces: they are not in the record of a run.
    """
    channel = run.channel
    try:
        return profiles.parse(channel.profile_text, channel.profile, "run.json")
    except InputError:
        return None


def over_time(runs: Sequence[Recorded]) -> Rates | None:
    """Return the rates during runs of one profile; None if they are unknown."""
    profile = profile_of(runs[0].run)
    if profile is None:
        return None
    begins = {
        (item.epoch, item.interval): item.apply_at_s for run in runs for item in run.intervals
    }  # the same on every device
    if profile.interval_s is None:  # a draw may be in force since before its run began
        held = [run.run.channel for run in runs if not run.intervals]
        begins |= {(state.epoch, state.interval): state.apply_at_s for state in held}
    if not begins:
        return None
    ordered = sorted((begin_s, interval) for (_, interval), begin_s in begins.items())
    if profile.interval_s is None and len({interval for _, interval in ordered}) == 1:
        ordered = ordered[:1]  # the same draw, applied again
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
    """Return the nominal length of an interval; with a draw per request, the longest one."""
    if profile.interval_s is not None:
        return profile.interval_s
    return float(np.diff(begin_s).max()) if len(begin_s) > 1 else None


def _drawn(run: Run, intervals: tuple[int, ...]) -> NDArray[np.float64]:
    return _drawn_of(run.channel.profile_text, run.channel.profile, intervals)


@lru_cache(maxsize=2)  # the table and the figure of a group need the same rates
def _drawn_of(text: str, name: str, intervals: tuple[int, ...]) -> NDArray[np.float64]:
    profile = profiles.parse(text, name, "run.json")
    return np.array(
        [
            [(mbps(device, device.down), mbps(device, device.up)) for device in states]
            for states in map(profile.devices, intervals)
        ]
    )
