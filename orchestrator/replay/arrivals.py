"""When a run's requests are to start: as answers come, or on a schedule that heeds no answer.

    closed    a request when one has ended, `concurrency` of them at a time
    poisson   gaps between starts are exponential, with a mean of 1 / rate
    gamma     gaps are gamma-distributed with the same mean and `burstiness` as their shape k: a
              coefficient of variation of 1 / √k, so 1 is Poisson, less comes in bursts, more evenly
    trace     at recorded times

A schedule begins with its first request, and is the same for the same seed.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from pathlib import Path
from typing import cast, get_args

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from orchestrator import text_file
from orchestrator.errors import InputError
from orchestrator.replay.records import Arrivals, ArrivalsKind

OPTIONS = {
    "--rate": ("poisson", "gamma"),
    "--burstiness": ("gamma",),
    "--seed": ("poisson", "gamma"),
    "--time-scale": ("poisson", "gamma", "trace"),
}
NEEDED = ("--rate", "--burstiness")
ALLOWED = "closed, poisson, gamma or trace:FILE"
TRACE_BYTES = 1 << 26
LONGEST_S = 30 * 86400.0
SHOWN_CHARACTERS = 60


@dataclass(frozen=True)
class Schedule:
    """When requests start; `arrivals` is what a run records of it."""

    arrivals: Arrivals
    recorded_s: tuple[float, ...] = ()

    def starts_s(self, count: int) -> list[float] | None:
        """How long after the first of `count` requests each is to start; None: as answers come.

        Raises:
            InputError: a trace is shorter than that, or the last one would start too late.
        """
        arrivals = self.arrivals
        if arrivals.kind == "closed":
            return None
        if arrivals.kind == "trace":
            if len(self.recorded_s) < count:
                raise InputError(
                    f"--arrivals trace:{arrivals.trace}: has {len(self.recorded_s)} arrivals for "
                    f"{count} prompts; allowed: as many at least, or a --limit"
                )
            times = np.array(self.recorded_s[:count])
        else:
            assert arrivals.rate_per_s is not None
            shape = arrivals.burstiness or 1.0
            rng = np.random.default_rng(arrivals.seed)
            with np.errstate(all="ignore"):  # what comes of it is checked
                scale = np.divide(1.0, np.multiply(arrivals.rate_per_s, shape))
                times = np.cumsum(rng.gamma(shape, scale, count))
        with np.errstate(all="ignore"):
            times = (times - times[0]) * arrivals.time_scale
        if not times[-1] <= LONGEST_S:  # nor if it is not a number
            raise InputError(
                f"--arrivals {arrivals.kind}: the last of {count} requests would start "
                f"{times[-1]:g} s after the first; allowed: at most {LONGEST_S:g} s, times are in "
                "seconds"
            )
        return [float(each) for each in times]


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
    """The schedule that options ask for; InputError names the option that does not fit."""
    kind, colon, file = arrivals.partition(":")
    if kind not in get_args(ArrivalsKind) or (kind == "trace") != bool(colon):
        raise InputError(f"--arrivals is {arrivals!r}; allowed: {ALLOWED}")
    given = {
        "--rate": rate_per_s,
        "--burstiness": burstiness,
        "--seed": seed,
        "--time-scale": time_scale,
    }
    for option, value in given.items():
        kinds = OPTIONS[option]
        if value is None:
            if option in NEEDED and kind in kinds:
                raise InputError(f"{option}: is missing; --arrivals {kind} needs it")
        elif kind not in kinds:
            raise InputError(
                f"{option}: means nothing with --arrivals {kind}; allowed with {', '.join(kinds)}"
            )
        elif option != "--seed" and not (math.isfinite(value) and value > 0):
            raise InputError(f"{option} is {value:g}; allowed: a number above 0")
    if kind == "closed":
        return Schedule(Arrivals(concurrency=concurrency or 1))
    recorded_s, sha256 = _read_trace(Path(file)) if kind == "trace" else ((), None)
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


class _Arrival(BaseModel):
    model_config = ConfigDict(strict=True, allow_inf_nan=False)

    timestamp_s: float


def _read_trace(path: Path) -> tuple[tuple[float, ...], str]:
    """The times of a trace [s], and the hash of its file."""
    text = text_file.read(path, TRACE_BYTES)
    if not text.strip():
        raise InputError(f"{path}: is empty; allowed: an arrival time a line")
    times_s: list[float] = []
    for number, line in enumerate(text.removesuffix("\n").split("\n"), start=1):
        time_s = _time_s(line)
        if time_s is None:
            shown = line if len(line) <= SHOWN_CHARACTERS else line[: SHOWN_CHARACTERS - 1] + "…"
            raise InputError(
                f"{path}, line {number}: {shown!r} is no arrival time; allowed: seconds from 0 "
                'on, or {"timestamp_s": SECONDS}'
            )
        if times_s and time_s < times_s[-1]:
            raise InputError(
                f"{path}, line {number}: {time_s:g} s is before line {number - 1}'s "
                f"{times_s[-1]:g} s; allowed: times in their order"
            )
        times_s.append(time_s)
    return tuple(times_s), hashlib.sha256(text.encode()).hexdigest()


def _time_s(line: str) -> float | None:
    """The time in a line; None if there is none that can be used."""
    try:
        if line.lstrip().startswith("{"):
            time_s = _Arrival.model_validate_json(line).timestamp_s
        else:
            time_s = float(line)
    except (ValueError, ValidationError):
        return None
    return time_s if math.isfinite(time_s) and time_s >= 0 else None
