"""A replay as a Chrome trace: events in JSON, which Perfetto and others show.

    requests       a track each: prompt │ HTTP │ base station │ queue, steps                b, e
    base station   step │ layer │ gate, selection, combine; a step once, whosesoever it is    X
    devices        device-q: round_trip │ downlink, wait, compute, pack, uplink               X

Times are microseconds from the file's beginning. The file is a whole one after each request.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Lock
from typing import Any, TypeAlias

from orchestrator.client.client import now_s
from orchestrator.contracts.clock_offset import shift_into
from orchestrator.errors import InputError, StackError
from orchestrator.results.schema import Request, TraceTold

Event: TypeAlias = dict[str, Any]

_REQUESTS, _BASE_STATION, _DEVICES = 1, 2, 3
_PROCESSES = {_REQUESTS: "requests", _BASE_STATION: "base station", _DEVICES: "devices"}
_TAIL = b"\n]}\n"


def check_free(file: Path, out: Path | None = None) -> None:
    """InputError if a trace file cannot be made; in `out` it can, once that is there."""
    try:
        file.lstat()
    except FileNotFoundError as error:
        absolute = file.absolute()
        if not absolute.parent.is_dir() and (out is None or absolute.parent != out.absolute()):
            raise _cannot(file, error) from None
    except OSError as error:
        raise _cannot(file, error) from None
    else:
        raise InputError(f"--trace-file {file}: exists already; allowed: a new file")


class ChromeTrace:
    """The file; requests are added by any thread."""

    def __init__(self, file: Path) -> None:
        """InputError if it cannot be created, StackError if not written."""
        try:
            self._file = file.open("xb", buffering=0)
        except OSError as error:
            check_free(file)
            raise _cannot(file, error) from None
        self._lock = Lock()
        self._zero_ns = _ns(now_s())
        self._shift_ns = 0
        self._steps: set[int] = set()
        self._devices: set[int] = set()
        self._path = file
        self._requests = 0
        about = {"displayTimeUnit": "ms", "otherData": {"start_unix_ns": str(self._zero_ns)}}
        names = [_named("process_name", name, pid, pid) for pid, name in _PROCESSES.items()]
        names.append(_named("thread_name", "steps", _BASE_STATION, _BASE_STATION))
        self._end = 0  # of the whole file but its tail
        try:
            self._append(json.dumps(about).encode()[:-1] + b', "traceEvents": [\n' + _lines(names))
        except StackError:
            self.close()
            raise

    def close(self) -> None:
        """Nothing is added any more; of no requests there is no file."""
        with self._lock:
            self._file.close()
            if not self._requests:
                self._path.unlink(missing_ok=True)

    def add(self, request: Request, told: TraceTold | None) -> None:
        """A request that has ended, and its trace if it has one.

        Raises:
            StackError: the file cannot be written; it is as it was before.
        """
        with self._lock:
            if not self._file.closed:
                self._requests += 1
                self._append(b",\n" + _lines(self._of(request, told)))

    def _of(self, request: Request, told: TraceTold | None) -> Iterator[Event]:
        asked_ns, sent_ns = _ns(request.intended_start_s), _ns(request.actual_start_s)
        ended_ns = max(sent_ns, asked_ns + _ns(request.end_to_end_s))
        about = {"id": request.id, "prompt_id": request.prompt_id, "score": request.score}
        if request.error is not None:
            about["error"] = request.error
        yield self._begins(request, request.prompt_id, asked_ns, about)
        if sent_ns > asked_ns:
            yield from self._through(request, "dispatch delay", asked_ns, sent_ns)
        if request.backoff_s:
            first_ns, sent_ns = sent_ns, sent_ns + _ns(request.backoff_s)
            yield from self._through(request, "backoff", first_ns, sent_ns)
        yield self._begins(request, "HTTP", sent_ns, {})
        if told is not None:
            yield from self._of_base_station(request, told, (sent_ns, ended_ns))
        yield self._ends(request, "HTTP", ended_ns)
        yield self._ends(request, request.prompt_id, ended_ns)

    def _of_base_station(
        self, request: Request, told: TraceTold, within: tuple[int, int]
    ) -> Iterator[Event]:
        whole = told.spans[0]
        zero_ns = told.start_unix_ns + self._shift_ns
        # Once found, what the clocks differ by holds, until a request shows that it has changed.
        shift_ns = shift_into(within, (zero_ns + whole[2], zero_ns + whole[3]))
        self._shift_ns += shift_ns
        zero_ns += shift_ns
        yield self._begins(request, "base station", zero_ns + whole[2], whole[4])
        new_step, device = False, 0
        for depth, name, start_ns, end_ns, about in told.spans[1:]:
            times = zero_ns + start_ns, zero_ns + end_ns
            if depth == 1:
                yield from self._through(request, _shown(name, about), *times, about)
                new_step = name == "step" and told.start_unix_ns + start_ns not in self._steps
            if not new_step:
                continue
            if name == "step":
                self._steps.add(told.start_unix_ns + start_ns)
            if name == "round_trip":
                device = int(about["device"])
                yield from self._meet(device)
            shared = {key: value for key, value in about.items() if key not in _OF_ONE}
            at = (_BASE_STATION, _BASE_STATION)
            if name == "round_trip" or depth > _ROUND_TRIP:
                at = (_DEVICES, _thread(device))
            yield self._complete(_shown(name, shared), *times, at, shared)
        yield self._ends(request, "base station", zero_ns + whole[3])

    def _meet(self, device: int) -> Iterator[Event]:
        if device not in self._devices:
            self._devices.add(device)
            yield _named("thread_name", f"device-{device}", _DEVICES, _thread(device))

    def _through(
        self, request: Request, name: str, start_ns: int, end_ns: int, about: Event | None = None
    ) -> Iterator[Event]:
        yield self._begins(request, name, start_ns, about or {})
        yield self._ends(request, name, end_ns)

    def _begins(self, request: Request, name: str, at_ns: int, about: Event) -> Event:
        return self._of_request("b", request, name, at_ns) | {"args": about}

    def _ends(self, request: Request, name: str, at_ns: int) -> Event:
        return self._of_request("e", request, name, at_ns)

    def _of_request(self, phase: str, request: Request, name: str, at_ns: int) -> Event:
        track = {"local": hex(request.id)}
        where = {"cat": "request", "id2": track, "pid": _REQUESTS, "tid": _REQUESTS}
        return {"ph": phase, "name": name, **where, "ts": self._us(at_ns)}

    def _complete(
        self, name: str, start_ns: int, end_ns: int, at: tuple[int, int], about: Event
    ) -> Event:
        pid, tid = at
        times = {"ts": self._us(start_ns), "dur": (end_ns - start_ns) / 1e3}
        return {"ph": "X", "name": name, "pid": pid, "tid": tid, **times, "args": about}

    def _us(self, at_ns: int) -> float:
        return (at_ns - self._zero_ns) / 1e3

    def _append(self, data: bytes) -> None:
        try:
            self._write(data + _TAIL)
        except OSError as error:
            with suppress(OSError):
                self._write(_TAIL)  # first: a full disk has room for it only where it was
                self._file.truncate()
            raise StackError(f"--trace-file {self._path}: {error.strerror or error}") from None
        self._end += len(data)

    def _write(self, data: bytes) -> None:
        self._file.seek(self._end)
        rest = memoryview(data)
        while rest:
            rest = rest[self._file.write(rest) :]


@contextmanager
def writing(file: Path | None) -> Iterator[ChromeTrace | None]:
    """A trace file for as long as requests are sent; None if none is wanted."""
    if file is None:
        yield None
        return
    trace = ChromeTrace(file)
    try:
        yield trace
    finally:
        trace.close()


_ROUND_TRIP = 3
# What a step is to one of its requests, and not to the others.
_OF_ONE = ("step", "own_tokens")


def _thread(device: int) -> int:
    """A number that no other thread of the file has, and not 0, which is Linux' idle task."""
    return _DEVICES + 1 + device


def _cannot(file: Path, error: OSError) -> InputError:
    return InputError(f"--trace-file {file}: {error.strerror or error}")


def _lines(events: Iterable[Event]) -> bytes:
    return b",\n".join(json.dumps(event).encode() for event in events)


def _named(what: str, name: str, pid: int, tid: int) -> Event:
    return {"ph": "M", "name": what, "pid": pid, "tid": tid, "args": {"name": name}}


def _shown(name: str, about: Event) -> str:
    """A span's name with its number, if it has one."""
    return f"{name} {about[name]}" if name in about else name


def _ns(time_s: float) -> int:
    return round(time_s * 1e9)
