"""A replay as a Chrome trace: JSON events for Perfetto and other viewers.

    requests       a track each: prompt │ HTTP │ base station │ queue, steps                b, e
    base station   step │ layer │ gate, selection, combine; each step once, even if shared    X
    devices        device-q: round_trip │ downlink, wait, compute, pack, uplink               X

Times are microseconds since the file was created. The file is valid JSON after every request.
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
from orchestrator.contracts.timings import RequestSpans
from orchestrator.errors import InputError, StackError
from orchestrator.results.schema import Request

Event: TypeAlias = dict[str, Any]

_REQUESTS, _BASE_STATION, _DEVICES = 1, 2, 3
_PROCESSES = {_REQUESTS: "requests", _BASE_STATION: "base station", _DEVICES: "devices"}
_TAIL = b"\n]}\n"


def check_free(file: Path, out: Path | None = None) -> None:
    """Raise InputError if the trace file cannot be created; its folder may be `out`, made later."""
    try:
        file.lstat()
    except FileNotFoundError as error:
        absolute = file.absolute()
        if not absolute.parent.is_dir() and (out is None or absolute.parent != out.absolute()):
            raise _cannot(file, error) from None
    except OSError as error:
        raise _cannot(file, error) from None
    else:
        raise InputError(f"trace file {file}: exists already; allowed: a new file")


class ChromeTrace:
    """A trace file; any thread may add requests."""

    def __init__(self, file: Path) -> None:
        """Create the file; InputError if that fails, StackError if it cannot be written."""
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
        names = [_metadata("process_name", name, pid, pid) for pid, name in _PROCESSES.items()]
        names.append(_metadata("thread_name", "steps", _BASE_STATION, _BASE_STATION))
        self._end = 0  # where the tail is written
        try:
            self._append(json.dumps(about).encode()[:-1] + b', "traceEvents": [\n' + _lines(names))
        except StackError:
            self.close()
            raise

    def close(self) -> None:
        """Close the file, and delete it if it has no request; later requests are ignored."""
        with self._lock:
            self._file.close()
            if not self._requests:
                self._path.unlink(missing_ok=True)

    def add(self, request: Request, trace: RequestSpans | None) -> None:
        """Add a request that has ended, with its trace if it has one.

        Raises:
            StackError: the file cannot be written; its content is unchanged.
        """
        with self._lock:
            if not self._file.closed:
                self._requests += 1
                self._append(b",\n" + _lines(self._of(request, trace)))

    def _of(self, request: Request, trace: RequestSpans | None) -> Iterator[Event]:
        intended_ns, sent_ns = _ns(request.intended_start_s), _ns(request.actual_start_s)
        ended_ns = max(sent_ns, intended_ns + _ns(request.end_to_end_s))
        about = {"id": request.id, "prompt_id": request.prompt_id, "score": request.score}
        if request.error is not None:
            about["error"] = request.error
        yield self._begins(request, request.prompt_id, intended_ns, about)
        if sent_ns > intended_ns:
            yield from self._through(request, "dispatch delay", intended_ns, sent_ns)
        if request.backoff_s:
            first_ns, sent_ns = sent_ns, sent_ns + _ns(request.backoff_s)
            yield from self._through(request, "backoff", first_ns, sent_ns)
        yield self._begins(request, "HTTP", sent_ns, {})
        if trace is not None:
            yield from self._of_base_station(request, trace, (sent_ns, ended_ns))
        yield self._ends(request, "HTTP", ended_ns)
        yield self._ends(request, request.prompt_id, ended_ns)

    def _of_base_station(
        self, request: Request, trace: RequestSpans, within: tuple[int, int]
    ) -> Iterator[Event]:
        whole = trace.spans[0]
        zero_ns = trace.start_unix_ns + self._shift_ns
        # The clocks' difference, once found, holds until a request shows that it has changed.
        shift_ns = shift_into(within, (zero_ns + whole[2], zero_ns + whole[3]))
        self._shift_ns += shift_ns
        zero_ns += shift_ns
        yield self._begins(request, "base station", zero_ns + whole[2], whole[4])
        new_step, device = False, 0
        for depth, name, start_ns, end_ns, about in trace.spans[1:]:
            times = zero_ns + start_ns, zero_ns + end_ns
            if depth == 1:
                yield from self._through(request, _shown(name, about), *times, about)
                new_step = name == "step" and trace.start_unix_ns + start_ns not in self._steps
            if not new_step:
                continue
            if name == "step":
                self._steps.add(trace.start_unix_ns + start_ns)
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
            yield _metadata("thread_name", f"device-{device}", _DEVICES, _thread(device))

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
                self._write(_TAIL)  # first: a full disk has space only where it was
                self._file.truncate()
            raise StackError(f"trace file {self._path}: {error.strerror or error}") from None
        self._end += len(data)

    def _write(self, data: bytes) -> None:
        self._file.seek(self._end)
        rest = memoryview(data)
        while rest:
            rest = rest[self._file.write(rest) :]


@contextmanager
def writing(file: Path | None) -> Iterator[ChromeTrace | None]:
    """Open a trace file, and close it at the end of `with`; None if `file` is None."""
    if file is None:
        yield None
        return
    trace = ChromeTrace(file)
    try:
        yield trace
    finally:
        trace.close()


_ROUND_TRIP = 3
# Attributes of a step that differ between the requests sharing it.
_OF_ONE = ("step", "own_tokens")


def _thread(device: int) -> int:
    """Return a thread id unique in the file, and not 0, the idle task on Linux."""
    return _DEVICES + 1 + device


def _cannot(file: Path, error: OSError) -> InputError:
    return InputError(f"trace file {file}: {error.strerror or error}")


def _lines(events: Iterable[Event]) -> bytes:
    return b",\n".join(json.dumps(event).encode() for event in events)


def _metadata(kind: str, name: str, pid: int, tid: int) -> Event:
    return {"ph": "M", "name": kind, "pid": pid, "tid": tid, "args": {"name": name}}


def _shown(name: str, about: Event) -> str:
    """Return a span's name, with its number if it has one."""
    return f"{name} {about[name]}" if name in about else name


def _ns(time_s: float) -> int:
    return round(time_s * 1e9)
