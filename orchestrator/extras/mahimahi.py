"""Packet-delivery traces of the Mahimahi link emulator, read as rates over time.

A line is a time in whole milliseconds at which the link could deliver one packet of 1500 bytes;
several packets in a millisecond are several lines. The time of the last line is the length of a
round, after which the file repeats; time 0 is the end of the previous round.

A packet is on the air from the time of the previous packets until its own, so a link that delivers
one packet every 208 ms carries 57.7 kbit/s throughout:

    packets     ┌──────── p                         rate  ────────┐        ┌──
    carried  ───┘         └──── 3 p                               └────────┘
             0           208   260 ms                     one in 208, 3 in 52 ms

An outage is a gap so long that one packet over it would be slower than the slowest possible link.
There, all packets at its end but one are carried in its last millisecond.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from orchestrator.errors import InputError
from orchestrator.files import text_file
from orchestrator.radio import link_trace
from orchestrator.radio.profile_schema import MAX_RATE_BPS, MIN_RATE_BPS

PACKET_BITS = 1500 * 8
MAX_STEPS = 100_000  # fit into a trace
# For a trace that is longer than both files, so that both end in whole rounds.
ROUNDS_STEPS = 10_000
OUTAGE_MS = 1000 * PACKET_BITS / MIN_RATE_BPS

_BLOCK_BYTES = 1 << 18
_LINE_BYTES = 64
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
# Possessive: backtracking over a block would need a hundred times its memory.
_LINE = re.compile(rb"[ \t]*+[0-9]{1,9}+[ \t\r]*+")
_LINES = re.compile(rb"(?:%b\n)*+%b" % (_LINE.pattern, _LINE.pattern))

_Times = NDArray[np.int64]
_Floats = NDArray[np.float64]


def convert(down: Path, up: Path, step_ms: int) -> tuple[str, list[str]]:
    """Convert one file per direction to the text of a trace with a line every `step_ms`.

    Each file repeats after its own end. The trace holds as many whole rounds of the longer file as
    it takes for the shorter one to end a round, too. Files are read twice, as streams.

    Returns:
        The text and a list of warnings.

    Raises:
        InputError: names file, line, value and what is allowed.
    """
    files = [_Recording.scan(path) for path in (down, up)]
    short, long = sorted(files, key=lambda file: file.length_ms)
    if long.length_ms > MAX_STEPS * step_ms:
        raise InputError(
            f"{long.path}: gives {-(-long.length_ms // step_ms)} steps of {step_ms} ms; allowed: "
            f"at most {MAX_STEPS}, with a longer step"
        )
    length_ms = _common_ms(long.length_ms, short.length_ms, step_ms)
    edges_ms = _edges_ms(length_ms, step_ms)
    warnings: list[str] = []
    rates_bps = []
    for file in files:
        rates = file.rates_bps(edges_ms)
        if length_ms % file.length_ms:
            factor = file.mean_bps / float(np.average(rates, weights=np.diff(edges_ms)))
            rates *= factor
            warnings.append(
                f"{file.path}: {length_ms / file.length_ms:.3g} rounds fit into "
                f"{length_ms / 1000:g} s; its rates are multiplied by {factor:.5f} to keep their "
                "mean"
            )
        warnings += _outages(file.path, edges_ms, rates, step_ms)
        rates_bps.append([round(rate, 3) for rate in rates.tolist()])
    return link_trace.render([edge / 1000 for edge in edges_ms.tolist()], *rates_bps), warnings


@dataclass(frozen=True)
class _Recording:
    """Summary of one file: its length, its packets, and the packets at time 0."""

    path: Path
    length_ms: int
    packets: int
    at_begin: int

    @classmethod
    def scan(cls, path: Path) -> _Recording:
        """Read a file to its end; InputError at the first fault."""
        length_ms = packets = at_begin = 0
        for times in _times_ms(path):
            length_ms = int(times[-1])
            packets += len(times)
            at_begin += int(np.count_nonzero(times == 0))
        if not packets:
            raise InputError(f"{path}: is empty; allowed: a line for each packet delivered")
        if not length_ms:
            raise InputError(f"{path}: lasts 0 ms; allowed: a last line above 0")
        return cls(path, length_ms, packets, at_begin)

    @property
    def mean_bps(self) -> float:
        """Mean rate of a round."""
        return self.packets * PACKET_BITS * 1000 / self.length_ms

    def rates_bps(self, edges_ms: _Floats) -> _Floats:
        """Return the mean rate from each edge to the next; InputError above the maximum."""
        rounds, offsets = np.divmod(edges_ms, self.length_ms)
        within, places = np.unique(offsets, return_inverse=True)
        carried = rounds * self.packets + self._carried(within)[places]
        rates: _Floats = np.diff(carried) * PACKET_BITS * 1000 / np.diff(edges_ms)
        if rates.max() > MAX_RATE_BPS:
            raise InputError(
                f"{self.path}: carries {rates.max():.3g} bit/s at its fastest; allowed: at most "
                f"{MAX_RATE_BPS:g}"
            )
        return rates

    def _carried(self, offsets_ms: _Floats) -> _Floats:
        """Return the packets carried from the start of a round until each of the rising offsets."""
        packets = np.empty_like(offsets_ms)
        done, begin_ms, begun = 0, 0.0, 0.0
        for times, counts in self._distinct():
            curve_ms, curve = _curve(begin_ms, begun, times, counts)
            begin_ms, begun = curve_ms[-1], curve[-1]
            end = int(np.searchsorted(offsets_ms, begin_ms, side="right"))
            packets[done:end] = np.interp(offsets_ms[done:end], curve_ms, curve)
            done = max(done, end)
        if done < len(offsets_ms):
            raise InputError(f"{self.path}: has another end when read again; allowed: a plain file")
        return packets

    def _distinct(self) -> Iterator[tuple[_Times, _Times]]:
        """Yield rising times and the number of packets at each, one part of the file at a time."""
        time, count = 0, 0  # the last time, at which the next part may have more packets
        for times in _times_ms(self.path):
            distinct, counts = np.unique(np.append(time, times), return_counts=True)
            counts[0] += count - 1
            yield distinct[:-1][distinct[:-1] > 0], counts[:-1][distinct[:-1] > 0]
            time, count = int(distinct[-1]), int(counts[-1])
        yield np.array([time]), np.array([count + self.at_begin])


def _curve(begin_ms: float, begun: float, times: _Times, counts: _Times) -> tuple[_Floats, _Floats]:
    """Return the corners of the curve of packets carried over time, from `begin_ms` on."""
    gaps = np.diff(times, prepend=begin_ms)
    ends = begun + np.cumsum(counts)
    late = (gaps > OUTAGE_MS) & (counts > 1)
    before = ends[late] - counts[late] + 1 - 1 / gaps[late]
    corners_ms = np.concatenate([[begin_ms], times[late] - 1, times])
    order = np.argsort(corners_ms)
    return corners_ms[order], np.concatenate([[begun], before, ends])[order]


def _common_ms(long_ms: int, short_ms: int, step_ms: int) -> int:
    """Return the length of whole rounds of the longer file that best fits the shorter one's."""
    most_ms = min(ROUNDS_STEPS * step_ms, round(link_trace.MAX_TIME_S * 1000))
    most = max(1, min(most_ms // long_ms, short_ms // math.gcd(long_ms, short_ms)))

    def left_over(rounds: int) -> float:
        rest_ms = rounds * long_ms % short_ms
        return min(rest_ms, short_ms - rest_ms) / rounds

    return long_ms * min(range(1, most + 1), key=left_over)


def _edges_ms(length_ms: int, step_ms: int) -> _Floats:
    """Return the edges of the steps; the rest of the length is split into two equal steps.

    Two, because the last line of a trace holds as long as the one before it.
    """
    whole = length_ms // step_ms
    if whole >= 2 and length_ms % step_ms == 0:
        return np.arange(0, length_ms + 1, step_ms, dtype=np.float64)
    begin_ms = max(whole - 1, 0) * step_ms
    ends_ms = [begin_ms + (length_ms - begin_ms) / 2, length_ms]
    starts_ms = np.arange(0, begin_ms, step_ms)
    return np.concatenate([starts_ms, [begin_ms], ends_ms], dtype=np.float64)


def _outages(path: Path, edges_ms: _Floats, rates_bps: _Floats, step_ms: int) -> list[str]:
    """Warn of steps in which a device is out of reach, and suggest a step that avoids them."""
    outages = int(np.count_nonzero(rates_bps < MIN_RATE_BPS))
    if not outages:
        return []
    warning = (
        f"{path}: {outages} of {len(rates_bps)} steps of {step_ms / 1000:g} s are below "
        f"{MIN_RATE_BPS / 1000:g} kbit/s, a device is out of reach there"
    )
    carried = np.concatenate([[0.0], np.cumsum(rates_bps * np.diff(edges_ms))])
    longer_ms = step_ms
    while (longer_ms := 2 * longer_ms) < edges_ms[-1]:
        longer = _edges_ms(int(edges_ms[-1]), longer_ms)
        rates = np.diff(np.interp(longer, edges_ms, carried)) / np.diff(longer)
        if rates.min() >= MIN_RATE_BPS:
            return [f"{warning}; with steps of {longer_ms / 1000:g} s there are none"]
    return [warning]


def _times_ms(path: Path) -> Iterator[_Times]:
    """Yield the checked times of a file's lines, one block of lines at a time."""
    line, blank, last = 1, 0, 0
    for block in _blocks(path):
        body = block.rstrip()
        if body:
            if blank or not _LINES.fullmatch(body):
                raise _fault(path, b"\n" * bool(blank) + body, blank or line)
            times = np.fromstring(body.decode(), np.int64, sep="\n")
            decreases = np.flatnonzero(np.diff(times, prepend=last) < 0)
            if decreases.size:
                at = int(decreases[0])
                raise InputError(
                    f"{path}, line {line + at}: is {times[at]}; allowed: no less than the line "
                    f"before's {times[at - 1] if at else last}"
                )
            last = int(times[-1])
            yield times
        lines = block.count(b"\n")
        blanks = lines - body.count(b"\n") - bool(body)
        line += lines
        if blanks > 0 and not blank:
            blank = line - blanks


def _blocks(path: Path) -> Iterator[bytes]:
    """Yield whole lines, about a block at a time; the last line may lack its end."""
    with text_file.stream(path) as file:
        rest = file.read(len(_BYTE_ORDER_MARK)).removeprefix(_BYTE_ORDER_MARK)
        while block := file.read(_BLOCK_BYTES):
            whole, end, rest = (rest + block).rpartition(b"\n")
            yield whole + end
            if len(rest) > _LINE_BYTES:  # such a line is invalid, and may never end
                break
        yield rest


def _fault(path: Path, lines: bytes, number: int) -> InputError:
    """Return the error for the first line that is not a time."""
    for at, line in enumerate(lines.split(b"\n"), start=number):
        if not _LINE.fullmatch(line):
            shown = line.removesuffix(b"\r").decode(errors="replace")[:40]
            return InputError(
                f"{path}, line {at}: is {shown!r}; allowed: a time in whole milliseconds, "
                "from 0 to 999999999"
            )
    raise AssertionError("every line is a time")
