"""The folder a run leaves behind: run.json at its start, requests.jsonl and intervals.jsonl line by
line, summary.json.

A folder belongs to one run; a second one is refused rather than mixed in.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel

from orchestrator.errors import InputError
from orchestrator.replay.records import Interval, Request, Run

RUN, REQUESTS, INTERVALS = "run.json", "requests.jsonl", "intervals.jsonl"
SUMMARY = "summary.json"


class RunFolder:
    """Where one run writes. Lines are flushed as they are added, so a killed run loses none."""

    def __init__(self, path: Path, run: Run) -> None:
        """Claim `path` for this run; InputError if it holds a run already or cannot be written."""
        self.path = path
        self._newest: dict[int, tuple[int, int]] = {}
        check_free(path)
        try:
            path.mkdir(parents=True, exist_ok=True)
            with (path / RUN).open(
                "x", encoding="utf-8"
            ) as file:  # "x": of two runs at once, one is refused
                file.write(_document(run))
            self._requests = (path / REQUESTS).open("x", encoding="utf-8")
            self._intervals = (path / INTERVALS).open("x", encoding="utf-8")
        except OSError as error:
            raise InputError(f"--out {path}: {error.strerror or error}") from None

    def add(self, request: Request) -> None:
        """Append one request's line."""
        self._requests.write(to_line(request) + "\n")
        self._requests.flush()

    def add_intervals(self, intervals: Sequence[Interval]) -> None:
        """Append what devices have applied, each interval once."""
        for one in sorted(intervals, key=lambda one: one.apply_at_s):
            if (one.epoch, one.interval) > self._newest.get(one.device, (-1, -1)):
                self._newest[one.device] = (one.epoch, one.interval)
                self._intervals.write(one.model_dump_json() + "\n")
        self._intervals.flush()

    def finish(self, summary: BaseModel) -> None:
        """Write the summary."""
        (self.path / SUMMARY).write_text(_document(summary), encoding="utf-8")

    def close(self) -> None:
        """Close the files that grow."""
        self._requests.close()
        self._intervals.close()


def to_line(request: Request) -> str:
    """A request as a line of requests.jsonl: ASCII, so that no reader finds a line end within."""
    return json.dumps(request.model_dump())


def check_free(path: Path) -> None:
    """InputError if a run is in `path` already."""
    for name in (RUN, REQUESTS, INTERVALS, SUMMARY):
        if (path / name).exists():
            raise InputError(f"--out {path}: holds a run already ({name}); allowed: a new folder")


def default_path(prompts: str, profile: str) -> Path:
    """`runs/YYYYmmdd-HHMMSS-SET-PROFILE` in the current folder."""
    name = re.sub(r"[^\w.-]+", "_", f"{prompts}-{profile}")
    return Path("runs") / f"{time.strftime('%Y%m%d-%H%M%S')}-{name}"


def _document(model: BaseModel) -> str:
    return model.model_dump_json(indent=2) + "\n"
