"""The start times of a run's requests: after answers, or on a schedule independent of answers.

    closed    a request starts when another has ended, `concurrency` of them at a time
    poisson   gaps between starts are exponential, with a mean of 1 / rate
    gamma     gaps are gamma-distributed with the same mean and `burstiness` as their shape k: a
              coefficient of variation of 1 / √k: 1 is Poisson, below 1 is bursty, above 1 more even
    trace     requests start at recorded times

A schedule begins with its first request; the same seed gives the same schedule.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import cast, get_args

import numpy as np

from orchestrator.errors import InputError
from orchestrator.files import text_file
from orchestrator.replay import arrival_traces
from orchestrator.results.schema import Arrivals, ArrivalsKind

PARAMETERS = {
    "rate": ("poisson", "gamma"),
    "burstiness": ("gamma",),
    "seed": ("poisson", "gamma"),
    "time scale": ("poisson", "gamma", "trace"),
}
NEEDED = ("rate", "burstiness")
ALLOWED = "closed, poisson, gamma or trace:FILE"
LONGEST_S = 30 * 86400.0


@dataclass(frozen=True)
class Schedule:
    """The start times of requests; `arrivals` is the part that a run records."""

    arrivals: Arrivals
    recorded_s: tuple[float, ...] = ()

    def starts_s(self, count: int) -> list[float] | None:
        """Return each request's start after the first one [s]; None: requests start after answers.

        Raises:
            InputError: a trace has fewer than `count` arrivals, or the last request would start too
                late.
        """
        arrivals = self.arrivals
        if arrivals.kind == "closed":
            return None
        if arrivals.kind == "trace":
            if len(self.recorded_s) < count:
                raise InputError(
                    f"{arrivals.trace}: has {len(self.recorded_s)} arrivals for {count} prompts; "
                    "allowed: as many at least, or fewer prompts"
                )
            times = np.array(self.recorded_s[:count])
        else:
            assert arrivals.rate_per_s is not None
            shape = arrivals.burstiness or 1.0
            rng = np.random.default_rng(arrivals.seed)
            with np.errstate(all="ignore"):  # the result is checked below
                scale = np.divide(1.0, np.multiply(arrivals.rate_per_s, shape))
                times = np.cumsum(rng.gamma(shape, scale, count))
        with np.errstate(all="ignore"):
            times = (times - times[0]) * arrivals.time_scale
        if not times[-1] <= LONGEST_S:  # also refuses NaN
            raise InputError(
                f"{arrivals.kind} arrivals: the last of {count} requests would start "
                f"{times[-1]:g} s after the first; allowed: at most {LONGEST_S:g} s, times are in "
                "seconds"
            )
        return [float(time_s) for time_s in times]


CLOSED = Schedule(Arrivals())


def choose(
    arrivals: str,
    *,
    rate_per_s: float | None = None,
    burstiness: float | None = None,
    time_scale: float | None = None,
    concurrency: int | None = None,
    seed: int | None = None,
) -> Schedule:
    """Return the schedule that the options describe; InputError names a parameter that is wrong."""
    kind, colon, file = arrivals.partition(":")
    if kind not in get_args(ArrivalsKind) or (kind == "trace") != bool(colon):
        raise InputError(f"arrivals is {arrivals!r}; allowed: {ALLOWED}")
    given = {
        "rate": rate_per_s,
        "burstiness": burstiness,
        "seed": seed,
        "time scale": time_scale,
    }
    for name, value in given.items():
        kinds = PARAMETERS[name]
        if value is None:
            if name in NEEDED and kind in kinds:
                raise InputError(f"{name}: is missing; {kind} arrivals need it")
        elif kind not in kinds:
            raise InputError(
                f"{name}: means nothing with {kind} arrivals; allowed with {', '.join(kinds)}"
            )
        elif name != "seed" and not (math.isfinite(value) and value > 0):
            raise InputError(f"{name} is {value:g}; allowed: a number above 0")
    if kind == "closed":
        return Schedule(Arrivals(concurrency=concurrency or 1))
    recorded_s: tuple[float, ...] = ()
    sha256 = None
    if kind == "trace":
        recorded_s, sha256 = arrival_traces.read(text_file.user_path(file))
    return Schedule(
        Arrivals(
            kind=cast(ArrivalsKind, kind),
            rate_per_s=rate_per_s,
            burstiness=burstiness,
            seed=None if kind == "trace" else seed or 0,
            trace=file or None,
            trace_sha256=sha256,
            time_scale=time_scale or 1.0,
            concurrency=concurrency,
        ),
        recorded_s,
    )
