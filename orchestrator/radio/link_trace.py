"""Recorded links: the rates of both directions over time, read from a CSV file.

    time_s,down_bps,up_bps
    0,20e6,5e6
    0.1,0,5e6

Spaces around a value are ignored. The rates of a line hold until the time of the next line, those
of the last line as long as those of the line before it. Then the trace repeats. A rate of 0 is an
outage. Times are whole nanoseconds, so that the millionth round begins where the first did.
"""

from __future__ import annotations

import itertools
import re
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.errors import InputError, short
from orchestrator.files import text_file
from orchestrator.radio.profile_schema import MAX_RATE_BPS

MAX_BYTES = 4 << 20  # of all traces of one profile together
MAX_TIME_S = 1e6
HEADER = "time_s,down_bps,up_bps"

_NUMBER = re.compile(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?")


@dataclass(frozen=True)
class Series:
    """One direction: rate k holds from edge k to edge k + 1 [ns]; the series repeats."""

    edges_ns: tuple[int, ...]
    rates_bps: tuple[float, ...]
    bits: tuple[float, ...]  # carried until each edge

    @classmethod
    def of(cls, edges_ns: tuple[int, ...], rates_bps: tuple[float, ...]) -> Series:
        """Return the series of these rates; there is one edge more than rates."""
        carried = (
            rate * (end - begin) * 1e-9
            for rate, (begin, end) in zip(rates_bps, itertools.pairwise(edges_ns), strict=True)
        )
        return cls(edges_ns, rates_bps, tuple(itertools.accumulate(carried, initial=0.0)))

    def mean_bps(self, begin_ns: int, end_ns: int) -> float:
        """Return the mean rate between two times, in whole bit/s."""
        first = begin_ns % self.edges_ns[-1]
        bits = self._bits_until(first + end_ns - begin_ns) - self._bits_until(first)
        return float(round(bits / (end_ns - begin_ns) * 1e9))

    def _bits_until(self, time_ns: int) -> float:
        rounds, rest = divmod(time_ns, self.edges_ns[-1])
        line = bisect_right(self.edges_ns, rest) - 1
        partial = self.rates_bps[line] * (rest - self.edges_ns[line]) * 1e-9
        return rounds * self.bits[-1] + self.bits[line] + partial


@dataclass(frozen=True)
class Trace:
    """Both directions of a recorded link, and the text that they were parsed from."""

    text: str
    down: Series
    up: Series

    @property
    def length_ns(self) -> int:
        """Length of a round, after which the trace repeats."""
        return self.down.edges_ns[-1]


def parse(text: str, source: str) -> Trace:
    """Parse a trace; InputError states the first fault in one line that begins with `source`."""
    if not text:
        raise InputError(f"{source}: is empty; allowed: a line {HEADER}, and at least 2 more")
    header, *lines = text_file.lines(text) or [""]
    if [name.strip() for name in header.split(",")] != HEADER.split(","):
        raise InputError(f"{source}, line 1: is {short(header)}; allowed: {HEADER}")
    if len(lines) < 2:
        raise InputError(f"{source}: has {len(lines)} lines after the first; allowed: at least 2")
    times: list[int] = []
    downs: list[float] = []
    ups: list[float] = []
    for number, line in enumerate(lines, start=2):
        where = f"{source}, line {number}"
        time_s, down, up = _fields(line, where)
        time_ns = round(_number(time_s, f"{where}: time_s", "s", MAX_TIME_S) * 1e9)
        _check_time(time_ns, times, time_s, where)
        times.append(time_ns)
        downs.append(_number(down, f"{where}: down_bps", "bit/s", MAX_RATE_BPS))
        ups.append(_number(up, f"{where}: up_bps", "bit/s", MAX_RATE_BPS))
    edges = (*times, 2 * times[-1] - times[-2])
    return Trace(text, Series.of(edges, tuple(downs)), Series.of(edges, tuple(ups)))


def render(edges_s: Sequence[float], down_bps: Sequence[float], up_bps: Sequence[float]) -> str:
    """Return the text of a trace whose line k holds from edge k to edge k + 1.

    The last line must hold as long as the one before it.
    """
    lines = (
        f"{time:.12g},{down:.10g},{up:.10g}"
        for time, down, up in zip(edges_s[:-1], down_bps, up_bps, strict=True)
    )
    return "\n".join([HEADER, *lines]) + "\n"


def _fields(line: str, where: str) -> list[str]:
    fields = [field.strip() for field in line.split(",")]
    if len(fields) != 3:
        raise InputError(f"{where}: is {short(line)}; allowed: three numbers, {HEADER}")
    return fields


def _number(text: str, where: str, unit: str, most: float) -> float:
    value = float(text) if _NUMBER.fullmatch(text) else -1.0
    if not 0 <= value <= most:
        raise InputError(
            f"{where} is {short(text)}; allowed: a plain number in {unit}, from 0 to {most:g}"
        )
    return value


def _check_time(time_ns: int, before: list[int], text: str, where: str) -> None:
    if not before and time_ns != 0:
        raise InputError(f"{where}: time_s is {short(text)}; allowed: 0, the first line's time")
    if before and time_ns <= before[-1]:
        raise InputError(
            f"{where}: time_s is {short(text)}; allowed: more than the line before's "
            f"{before[-1] * 1e-9:.10g}, by a nanosecond at least"
        )
