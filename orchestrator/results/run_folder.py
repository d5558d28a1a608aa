"""The folder of a run: run.json, requests.jsonl, intervals.jsonl, summary.json; on request also
routing/ID.npz and code.jsonl. run.json is written first, the .jsonl files line by line.

A folder belongs to one run. A stopped run continues in it if everything that its results depend on
is unchanged; any other run is refused.
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

from orchestrator.contracts.http import Interval
from orchestrator.errors import InputError, first_fault
from orchestrator.files import json_file
from orchestrator.results.provenance import of_stack
from orchestrator.results.schema import CodeResult, Request, Run
from orchestrator.results.summary import Summary

RUN, REQUESTS, INTERVALS = "run.json", "requests.jsonl", "intervals.jsonl"
ROUTING, CODE, SUMMARY = "routing", "code.jsonl", "summary.json"

_Line = TypeVar("_Line", bound=BaseModel)

_PROMPTS = ("name", "sha256", "items", "template", "shuffle_seed")


class RunFolder:
    """The folder that one run writes to; lines are flushed at once, so a killed run loses none.

    Attributes:
        run: the record of the run's start, also if it has been stopped and resumed since.
        recorded: the requests recorded before it was stopped.
    """

    def __init__(self, path: Path, run: Run, *, resume: bool = False) -> None:
        """Claim `path` for this run.

        Raises:
            InputError: it cannot be written; or it holds a run already, and `resume` is not set,
                the run is another one, or another process is writing to it.
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
                json_file.create(path / RUN, run)  # of two concurrent runs, one is refused
            with ExitStack() as opened:
                self._requests = opened.enter_context(_append_to(path / REQUESTS))
                self._intervals = opened.enter_context(_append_to(path / INTERVALS))
                self.recorded = read_requests(path)
                self._newest = _newest(read_intervals(path))
                opened.pop_all()
        except BlockingIOError:
            raise InputError(
                f"{path}: a run is writing to it; allowed: when that has ended"
            ) from None
        except OSError as error:
            raise InputError(f"{path}: {error.strerror or error}") from None

    def add(self, request: Request, routing: bytes | None = None) -> None:
        """Append one request's line, and store its routing as received."""
        if routing is not None:
            (self.path / ROUTING).mkdir(exist_ok=True)
            (self.path / ROUTING / f"{request.id}.npz").write_bytes(routing)
        self._requests.write(to_line(request) + "\n")
        self._requests.flush()

    def add_intervals(self, intervals: Sequence[Interval]) -> None:
        """Append the intervals that devices have applied, each once."""
        for item in sorted(intervals, key=lambda item: item.apply_at_s):
            if (item.epoch, item.interval) > self._newest.get(item.device, (-1, -1)):
                self._newest[item.device] = (item.epoch, item.interval)
                self._intervals.write(item.model_dump_json() + "\n")
        self._intervals.flush()

    def add_code(self, result: CodeResult) -> None:
        """Append the outcome of a request's program."""
        with _append_to(self.path / CODE) as results:
            results.write(result.model_dump_json() + "\n")

    def close(self) -> None:
        """Close the .jsonl files."""
        self._requests.close()
        self._intervals.close()


def read_run(path: Path) -> Run:
    """Return the record of the start of a folder's run; InputError if it cannot be read."""
    return json_file.read(path / RUN, Run, "a run")


def read_requests(path: Path) -> list[Request]:
    """Return the requests of a folder's run so far; InputError names an invalid line.

    Requests whose programs were tested have the score of the test. An unterminated last line, left
    by a host that went down, is ignored.
    """
    requests = _read_lines(path / REQUESTS, Request, "a request")
    tested = read_code(path)
    return [
        request.model_copy(update={"score": tested[request.id].score})
        if request.id in tested
        else request
        for request in requests
    ]


def read_code(path: Path) -> dict[int, CodeResult]:
    """Return the outcomes of tested programs by request id; InputError as `read_requests`."""
    results = _read_lines(path / CODE, CodeResult, "a program's result")
    return {result.id: result for result in results}


def read_intervals(path: Path) -> list[Interval]:
    """Return the applied intervals that a folder's run has seen; InputError as `read_requests`."""
    return _read_lines(path / INTERVALS, Interval, "an interval")


def write_summary(path: Path, summary: Summary) -> None:
    """Write the summary of the run in a folder."""
    json_file.write(path / SUMMARY, summary)


def read_summary(path: Path) -> Summary:
    """Return the summary of the run in a folder; InputError if it cannot be read."""
    return json_file.read(path / SUMMARY, Summary, "a summary")


def to_line(request: Request) -> str:
    """Return a request as a line of requests.jsonl: ASCII, so it contains no line separator."""
    return json.dumps(request.model_dump())


def check_free(path: Path) -> None:
    """Raise InputError if `path` holds a run already."""
    for name in (RUN, REQUESTS, INTERVALS, ROUTING, CODE, SUMMARY):
        if (path / name).exists():
            raise InputError(f"{path}: holds a run already ({name}); allowed: a new folder")


def check_same(file: Path, before: Mapping[str, object], now: Mapping[str, object]) -> None:
    """Raise InputError, naming the field, if the record in `file` differs from the present."""
    for field in {**before, **now}:
        was, is_now = before.get(field), now.get(field)
        if was != is_now:
            raise InputError(f"{file}: {field} was {was}, it is {is_now} now; allowed: the same")


def default_path(prompts: str, profile: str) -> Path:
    """Return `runs/YYYYmmdd-HHMMSS-SET-PROFILE` in the current folder."""
    name = re.sub(r"[^\w.-]+", "_", f"{prompts}-{profile}")
    return Path("runs") / f"{time.strftime('%Y%m%d-%H%M%S')}-{name}"


def essence(run: Run) -> dict[str, object]:
    """Return what a run's results depend on; not who started it, when, or how links behaved."""
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
    """Return how fading begins, and the number of the draw if all requests share one."""
    if run.fading is None:
        return None
    draw = f", draw {run.channel.interval}" if run.fading.one_realisation else ""
    return run.fading.label + draw


def _schedule(run: Run) -> dict[str, object]:
    """Return what requests' starts depend on; not the path of a trace file."""
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
                f"{file}, line {number}: not {what} of this version: {first_fault(error)}"
            ) from None
    return read


def _newest(intervals: Sequence[Interval]) -> dict[int, tuple[int, int]]:
    """Return the last epoch and interval of each device."""
    newest: dict[int, tuple[int, int]] = {}
    for item in intervals:
        newest[item.device] = max((item.epoch, item.interval), newest.get(item.device, (-1, -1)))
    return newest


def _append_to(file: Path) -> TextIO:
    """Open a file to append lines after the last complete one.

    Raises:
        BlockingIOError: another process appends to it; its lock ends with the process.
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
