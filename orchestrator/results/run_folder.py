"""The folder a run leaves behind: run.json at its start, requests.jsonl and intervals.jsonl line by
line, routing/ID.npz and code.jsonl if asked for, summary.json.

A folder belongs to one run. A run that was stopped goes on in it, if all that its numbers depend
on is as it was; any other is refused rather than mixed in.
"""

from __future__ import annotations

import fcntl
import json
import re
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TextIO, TypeVar

from pydantic import BaseModel, ValidationError

from orchestrator.errors import InputError
from orchestrator.files import json_file
from orchestrator.results.provenance import of_stack
from orchestrator.results.schema import CodeResult, Interval, Request, Run
from orchestrator.results.summary import Summary

RUN, REQUESTS, INTERVALS = "run.json", "requests.jsonl", "intervals.jsonl"
ROUTING, CODE, SUMMARY = "routing", "code.jsonl", "summary.json"

_Line = TypeVar("_Line", bound=BaseModel)

_PROMPTS = ("name", "sha256", "items", "template", "shuffle_seed")


class RunFolder:
    """Where one run writes. Lines are flushed as they are added, so a killed run loses none.

    Attributes:
        run: what was in force when the run began, be it before it was stopped.
        recorded: the requests of before it was stopped.
    """

    def __init__(self, path: Path, run: Run, *, resume: bool = False) -> None:
        """Claim `path` for this run.

        Raises:
            InputError: it cannot be written; or it holds a run already, and `resume` is not set,
                the run is not the same, or another process is at it.
        """
        self.path = path
        if resume and (path / RUN).exists():
            self.run = read_run(path)
            check_same(path / RUN, essence(self.run), essence(run))
        else:
            self.run = run
            check_free(path)
        try:
            if self.run is run:
                path.mkdir(parents=True, exist_ok=True)
                json_file.create(path / RUN, run)  # of two runs at once, one is refused
            with ExitStack() as opened:
                self._requests = opened.enter_context(_append_to(path / REQUESTS))
                self._intervals = opened.enter_context(_append_to(path / INTERVALS))
                self.recorded = read_requests(path)
                self._newest = _newest(read_intervals(path))
                opened.pop_all()
        except BlockingIOError:
            raise InputError(
                f"--out {path}: a run is writing to it; allowed: when that has ended"
            ) from None
        except OSError as error:
            raise InputError(f"--out {path}: {error.strerror or error}") from None

    def add(self, request: Request, routing: bytes | None = None) -> None:
        """Append one request's line, and keep its routing as it came."""
        if routing is not None:
            (self.path / ROUTING).mkdir(exist_ok=True)
            (self.path / ROUTING / f"{request.id}.npz").write_bytes(routing)
        self._requests.write(to_line(request) + "\n")
        self._requests.flush()

    def add_intervals(self, intervals: Sequence[Interval]) -> None:
        """Append what devices have applied, each interval once."""
        for one in sorted(intervals, key=lambda one: one.apply_at_s):
            if (one.epoch, one.interval) > self._newest.get(one.device, (-1, -1)):
                self._newest[one.device] = (one.epoch, one.interval)
                self._intervals.write(one.model_dump_json() + "\n")
        self._intervals.flush()

    def add_code(self, result: CodeResult) -> None:
        """Append what became of a request's program."""
        with _append_to(self.path / CODE) as results:
            results.write(result.model_dump_json() + "\n")

    def close(self) -> None:
        """Close the files that grow."""
        self._requests.close()
        self._intervals.close()


def read_run(path: Path) -> Run:
    """What was in force when the run in a folder began; InputError if that cannot be read."""
    return json_file.read(path / RUN, Run, "a run")


def read_requests(path: Path) -> list[Request]:
    """The requests of a folder's run so far; InputError names the line that is none.

    Where programs were tested, their requests have the scores of that. A last line without its
    end, of a host that went down, does not count.
    """
    requests = _read_lines(path / REQUESTS, Request, "a request")
    tested = read_code(path)
    return [
        one.model_copy(update={"score": tested[one.id].score}) if one.id in tested else one
        for one in requests
    ]


def read_code(path: Path) -> dict[int, CodeResult]:
    """What became of the programs that were tested, by request; InputError as `read_requests`."""
    return {one.id: one for one in _read_lines(path / CODE, CodeResult, "a program's result")}


def read_intervals(path: Path) -> list[Interval]:
    """What devices have applied, as far as a folder's run saw it; InputError as `read_requests`."""
    return _read_lines(path / INTERVALS, Interval, "an interval")


def write_summary(path: Path, summary: Summary) -> None:
    """Write the summary of the run in a folder."""
    json_file.write(path / SUMMARY, summary)


def read_summary(path: Path) -> Summary:
    """The summary of the run in a folder; InputError if it cannot be read."""
    return json_file.read(path / SUMMARY, Summary, "a summary")


def to_line(request: Request) -> str:
    """A request as a line of requests.jsonl: ASCII, so that no reader finds a line end within."""
    return json.dumps(request.model_dump())


def check_free(path: Path) -> None:
    """InputError if a run is in `path` already."""
    for name in (RUN, REQUESTS, INTERVALS, ROUTING, CODE, SUMMARY):
        if (path / name).exists():
            raise InputError(f"--out {path}: holds a run already ({name}); allowed: a new folder")


def check_same(file: Path, before: Mapping[str, object], now: Mapping[str, object]) -> None:
    """InputError, naming the field, if what is recorded in a file is not what is so now."""
    for field in {**before, **now}:
        was, is_now = before.get(field), now.get(field)
        if was != is_now:
            raise InputError(
                f"--resume: {file}: {field} was {was}, it is {is_now} now; allowed: the same"
            )


def default_path(prompts: str, profile: str) -> Path:
    """`runs/YYYYmmdd-HHMMSS-SET-PROFILE` in the current folder."""
    name = re.sub(r"[^\w.-]+", "_", f"{prompts}-{profile}")
    return Path("runs") / f"{time.strftime('%Y%m%d-%H%M%S')}-{name}"


def essence(run: Run) -> dict[str, object]:
    """What a run's numbers depend on; not who started it, when, and how links did so far."""
    channel = run.channel
    return {
        **{f"prompts.{name}": getattr(run.prompts, name) for name in _PROMPTS},
        **of_stack(run.stack),
        "channel.profile": channel.profile,
        "channel.profile_sha256": channel.profile_sha256,
        "channel.policy": channel.policy.label,
        "channel.degraded": channel.degraded,
        **{f"arrivals.{name}": value for name, value in _schedule(run).items()},
        "warmup": run.warmup,
        "fading": _fading(run),
        "routing": run.routing,
    }


def _fading(run: Run) -> str | None:
    """How it begins, and which draw it is where it is one for all."""
    if run.fading is None:
        return None
    draw = f", draw {run.channel.interval}" if run.fading.one_realisation else ""
    return run.fading.label + draw


def _schedule(run: Run) -> dict[str, object]:
    """What requests' starts depend on; not where a trace's file lies."""
    return run.arrivals.model_dump(exclude={"trace"})


def _read_lines(file: Path, kind: type[_Line], what: str) -> list[_Line]:
    if not file.exists():
        return []
    read = []
    for number, line in enumerate(file.read_bytes().split(b"\n")[:-1], start=1):
        try:
            read.append(kind.model_validate_json(line))
        except ValidationError as error:
            raise InputError(
                f"{file}, line {number}: not {what} of this version: {json_file.first_fault(error)}"
            ) from None
    return read


def _newest(intervals: Sequence[Interval]) -> dict[int, tuple[int, int]]:
    """The last epoch and interval of each device."""
    newest: dict[int, tuple[int, int]] = {}
    for one in intervals:
        newest[one.device] = max((one.epoch, one.interval), newest.get(one.device, (-1, -1)))
    return newest


def _append_to(file: Path) -> TextIO:
    """Open for further lines, behind the last whole one.

    Raises:
        BlockingIOError: another process has it open so; its lock ends with it, however it ends.
    """
    lines = file.open("a+", encoding="utf-8")
    try:
        fcntl.flock(lines, fcntl.LOCK_EX | fcntl.LOCK_NB)
        lines.truncate(file.read_bytes().rfind(b"\n") + 1)
    except OSError:
        lines.close()
        raise
    return lines


SWEEP = "sweep.json"
