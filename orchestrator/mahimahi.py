"""Packet-delivery traces of the Mahimahi link emulator, read as rates over time.

A line is a whole number of milliseconds, at which the link could deliver one packet of 1500 bytes;
several packets in a millisecond are several lines. The last line's time is the trace's length,
after which it begins again.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

from orchestrator import text_file, traces
from orchestrator.errors import InputError

PACKET_BITS = 1500 * 8
MAX_STEPS = 100_000  # fit into a trace

_MILLISECONDS = re.compile(r"[0-9]{1,9}")


def convert(down: Path, up: Path, step_ms: int) -> str:
    """A trace's text with a line every `step_ms` from one file a direction.

    What the last step has to carry beyond the file's end is none. The shorter of two files begins
    again until the longer one ends, as in Mahimahi.

    Raises:
        InputError: file, line, value and what is allowed.
    """
    down_bps, up_bps = (_rates_bps(path, step_ms) for path in (down, up))
    steps = max(len(down_bps), len(up_bps))
    if steps < 2:
        raise InputError(
            f"{down} and {up}: both end within one step of {step_ms} ms; allowed: at least two"
        )
    return traces.render(
        step_ms / 1000,
        [down_bps[n % len(down_bps)] for n in range(steps)],
        [up_bps[n % len(up_bps)] for n in range(steps)],
    )


def _rates_bps(path: Path, step_ms: int) -> list[float]:
    """The mean rate of each step."""
    times = _delivery_times_ms(path)
    steps = -(-times[-1] // step_ms)
    if steps > MAX_STEPS:
        raise InputError(
            f"{path}: gives {steps} steps of {step_ms} ms; allowed: at most {MAX_STEPS}, "
            "with a longer step"
        )
    # An opportunity at the very end belongs to the last step.
    packets = Counter(min(time // step_ms, steps - 1) for time in times)
    return [packets[n] * PACKET_BITS * 1000 / step_ms for n in range(steps)]


def _delivery_times_ms(path: Path) -> list[int]:
    text = text_file.read(path, traces.MAX_BYTES)
    if not text:
        raise InputError(f"{path}: is empty; allowed: a line for each packet delivered")
    times: list[int] = []
    for number, line in enumerate(text.removesuffix("\n").split("\n"), start=1):
        value = line.removesuffix("\r")
        if not _MILLISECONDS.fullmatch(value):
            raise InputError(
                f"{path}, line {number}: is {value[:40]!r}; allowed: a time in whole milliseconds, "
                "from 0 to 999999999"
            )
        if times and int(value) < times[-1]:
            raise InputError(
                f"{path}, line {number}: is {value}; allowed: no less than the line before's "
                f"{times[-1]}"
            )
        times.append(int(value))
    if times[-1] == 0:
        raise InputError(f"{path}: lasts 0 ms; allowed: a last line above 0")
    return times
