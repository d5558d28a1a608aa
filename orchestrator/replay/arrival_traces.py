"""Arrival traces: recorded arrival times of requests, in one of four formats.

    0.35                                          seconds, one number per line
    {"timestamp_s": 0.9, …}                       seconds, one object per line
    {"timestamp": 850, "input_length": …, …}      Mooncake's: milliseconds
    TIMESTAMP,ContextTokens,GeneratedTokens       Azure's: one date and time of day per row
    2024-05-10 00:00:00.009930+00:00,120,20

Only times are read: prompts come from the replay's set. The first two formats may be mixed.
"""

from __future__ import annotations

import csv
import hashlib
import math
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from orchestrator.errors import InputError, cut
from orchestrator.files import text_file

MAX_BYTES = 1 << 26
ALLOWED = (
    'seconds from 0 on, {"timestamp_s": SECONDS}, Mooncake\'s {"timestamp": MILLISECONDS, '
    '"input_length": N, …}, or Azure\'s CSV with a column TIMESTAMP'
)


class _Arrival(BaseModel):
    model_config = ConfigDict(strict=True, allow_inf_nan=False)

    timestamp_s: float


class _Mooncake(BaseModel):
    model_config = ConfigDict(strict=True)

    # Whole milliseconds. Without `input_length`, or with a fraction (as in traces of this format in
    # seconds), the unit is unknown.
    timestamp: int
    input_length: int


def read(path: Path) -> tuple[tuple[float, ...], str]:
    """Return the times of a trace [s] and the hash of its text.

    Raises:
        InputError: the trace is invalid; names file, line, the text found and what is allowed.
    """
    text = text_file.read(path, MAX_BYTES)
    lines = text_file.lines(text)
    if not lines:
        raise InputError(f"{path}: is empty; allowed: an arrival time a line")
    header = [name.strip().upper() for name in lines[0].split(",")]
    first = 1
    time_of: Callable[[str], float] = _time_s
    if "TIMESTAMP" in header:
        if len(lines) == 1:
            raise InputError(f"{path}: has no arrival after its first line; allowed: at least one")
        first, time_of = 2, _time_of_row(header.index("TIMESTAMP"))
    times_s = [
        _checked(time_of, line, f"{path}, line {number}")
        for number, line in enumerate(lines[first - 1 :], first)
    ]
    for number, (before, time_s) in enumerate(pairwise(times_s), first + 1):
        if time_s < before:
            raise InputError(
                f"{path}, line {number}: {time_s:g} s is before line {number - 1}'s "
                f"{before:g} s; allowed: times in their order"
            )
    return tuple(times_s), hashlib.sha256(text.encode()).hexdigest()


def _checked(time_of: Callable[[str], float], line: str, where: str) -> float:
    try:
        time_s = time_of(line)
    except (ValueError, csv.Error):  # pydantic's errors are ValueErrors
        time_s = math.nan
    if math.isfinite(time_s) and time_s >= 0:
        return time_s
    raise InputError(f"{where}: {cut(line)!r} is no arrival time; allowed: {ALLOWED}")


def _time_s(line: str) -> float:
    """Return the time in a line [s]; raise ValueError if it has none."""
    if not line.lstrip().startswith("{"):
        return float(line)
    try:
        return _Arrival.model_validate_json(line).timestamp_s
    except ValidationError:
        return _Mooncake.model_validate_json(line).timestamp / 1000


def _time_of_row(column: int) -> Callable[[str], float]:
    """Return a function that reads a row's time [s since 1970]; times without a zone are UTC."""

    def time_s(line: str) -> float:
        (row,) = csv.reader([line], strict=True)
        if column >= len(row) or ":" not in row[column]:  # a plain number may or may not be a date
            raise ValueError
        time = datetime.fromisoformat(row[column].strip())
        return (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()

    return time_s
