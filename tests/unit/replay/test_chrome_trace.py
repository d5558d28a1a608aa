"""The Chrome trace of a replay: its content, and that it is valid after each request."""

from __future__ import annotations

import json
import resource
from collections.abc import Sequence
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from orchestrator.client.client import now_s
from orchestrator.contracts.timings import RequestSpans
from orchestrator.errors import InputError, StackError
from orchestrator.replay.chrome_trace import ChromeTrace, check_free, writing
from orchestrator.results.schema import Request
from services.bs.tracing.spans import RequestTrace
from tests.harness.cell import Cell, emulating
from tests.harness.engine_room import EngineRoom, asking
from tests.harness.traced import PARTS, check_chrome


def request(number: int, start_s: float, end_s: float, late_s: float = 0.0) -> Request:
    """Return a request as the client saw it."""
    return Request(
        id=number,
        prompt_id=f"prompt-{number}",
        completion="",
        answer="",
        expected="",
        score=1.0,
        intended_start_s=start_s,
        actual_start_s=start_s + late_s,
        time_to_first_token_s=None,
        end_to_end_s=end_s - start_s,
        http_s=None,
        timings=None,
        error=None,
    )


def read(file: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(file.read_bytes())
    check_chrome(document)
    return document


def phase(document: dict[str, Any], kind: str, **where: Any) -> list[dict[str, Any]]:
    return [
        event
        for event in document["traceEvents"]
        if event["ph"] == kind and all(event.get(key) == value for key, value in where.items())
    ]


def together(cell: Cell, count: int) -> tuple[Sequence[RequestTrace], Sequence[Request]]:
    """Serve requests side by side with a real engine; return them as a client saw them."""
    cell.channel.state = emulating(flops=1e15)
    cell.start_all()
    answers = [asking([[n + 1, 2, 3]], 2 + n) for n in range(count)]
    start_s = now_s()
    for answer in answers:
        answer.request.trace = RequestTrace(answer.request.arrived_s)
    EngineRoom(cell).serve(*answers)
    traces = [answer.request.trace for answer in answers if answer.request.trace is not None]
    return traces, [request(n, start_s - 1 + n / 10, now_s(), 0.2) for n in range(count)]


def reported(trace: RequestTrace) -> RequestSpans:
    """Return a trace as the base station reports it."""
    return RequestSpans.model_validate_json(trace.record().in_answer().model_dump_json())


def test_requests_the_base_station_and_each_device_have_their_tracks(
    cell: Cell, tmp_path: Path
) -> None:
    file = tmp_path / "trace.json"
    with writing(file) as trace:
        assert trace is not None
        trace._zero_ns -= 2 * 10**9  # the requests began before the file
        traces, requests = together(cell, 3)
        for seen, spans in zip(requests, traces, strict=True):
            trace.add(seen, reported(spans))
            read(file)
    document = read(file)
    threads = {event["args"]["name"] for event in phase(document, "M", name="thread_name")}
    assert threads == {"steps", *(f"device-{q}" for q in range(4))}
    steps = phase(document, "X", name="step")
    assert len(steps) == 4  # those of the longest request, which the others share
    assert {key for step in steps for key in step["args"]} == {"tokens", "sequences"}
    layers = [event for event in phase(document, "X") if event["name"].startswith("layer")]
    assert [layer["name"] for layer in layers] == ["layer 0", "layer 1", "layer 2"] * 4
    trips = phase(document, "X", name="round_trip")
    assert {(trip["pid"], trip["tid"]) for trip in trips} == {(3, 4 + q) for q in range(4)}
    for part in PARTS:
        assert len(phase(document, "X", name=part, pid=3)) == len(trips)
    for number in range(3):
        names = [event["name"] for event in phase(document, "b", id2={"local": hex(number)})]
        assert names[:5] == [f"prompt-{number}", "dispatch delay", "HTTP", "base station", "queue"]
        assert sum(name.startswith("step") for name in names) == 2 + number


def test_spans_of_a_base_station_with_another_clock_are_shifted(cell: Cell, tmp_path: Path) -> None:
    traces, requests = together(cell, 2)
    ahead = [reported(trace) for trace in traces]
    for early in ahead:
        object.__setattr__(early, "start_unix_ns", early.start_unix_ns + 3600 * 10**9)
    trace = ChromeTrace(tmp_path / "trace.json")
    trace._zero_ns -= 60 * 10**9
    for seen, early in zip(requests, ahead, strict=True):
        trace.add(seen, early)
    trace.close()
    read(tmp_path / "trace.json")


def test_a_request_without_a_trace_has_the_clients_spans_only(tmp_path: Path) -> None:
    file = tmp_path / "trace.json"
    with writing(file) as trace:
        assert trace is not None
        start_s = now_s()
        failed = request(0, start_s, start_s + 1).model_copy(update={"error": "HTTP 503"})
        trace.add(failed, None)
    begun = phase(read(file), "b")
    assert [event["name"] for event in begun] == ["prompt-0", "HTTP"]
    assert begun[0]["args"]["error"] == "HTTP 503"


def test_several_threads_add_requests_and_those_after_the_end_are_left_out(tmp_path: Path) -> None:
    file = tmp_path / "trace.json"
    trace = ChromeTrace(file)
    start_s = now_s()

    def add(first: int) -> None:
        for number in range(first, first + 50):
            trace.add(request(number, start_s, start_s + 1), None)

    threads = [Thread(target=add, args=[50 * n]) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    trace.close()
    add(1000)
    assert {int(event["id2"]["local"], 16) for event in phase(read(file), "b")} == {*range(200)}


def test_a_trace_without_requests_leaves_no_file(tmp_path: Path) -> None:
    with writing(tmp_path / "trace.json"):
        pass
    assert not list(tmp_path.iterdir())


def test_a_request_that_does_not_fit_on_the_disk_leaves_the_file_unchanged(tmp_path: Path) -> None:
    file = tmp_path / "trace.json"
    trace = ChromeTrace(file)
    trace.add(request(0, now_s(), now_s() + 1), None)
    before = file.read_bytes()
    none = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 50, none[1]))
    try:
        with pytest.raises(StackError, match=r"trace file .*trace\.json: File too large"):
            trace.add(request(1, now_s(), now_s() + 1), None)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, none)
    assert file.read_bytes() == before
    trace.add(request(2, now_s(), now_s() + 1), None)
    trace.close()
    assert {event["id2"]["local"] for event in phase(read(file), "b")} == {"0x0", "0x2"}


def test_an_existing_file_is_refused_and_left_unchanged(tmp_path: Path) -> None:
    file = tmp_path / "trace.json"
    file.write_text("mine")
    for use in (check_free, ChromeTrace):
        with pytest.raises(InputError, match=r"trace file .*: exists already; allowed: a new"):
            use(file)
    assert file.read_text() == "mine"


def test_a_dangling_link_counts_as_an_existing_file(tmp_path: Path) -> None:
    file = tmp_path / "trace.json"
    file.symlink_to(tmp_path / "nothing")
    for use in (check_free, ChromeTrace):
        with pytest.raises(InputError, match=r"trace file .*: exists already; allowed: a new"):
            use(file)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("nowhere/trace.json", "No such file or directory"),
        ("x" * 300, "File name too long"),
    ],
)
def test_a_file_that_cannot_be_created_is_refused(tmp_path: Path, name: str, why: str) -> None:
    for use in (check_free, ChromeTrace):
        with pytest.raises(InputError, match=f"trace file .*{name}: {why}"):
            use(tmp_path / name)


def test_a_file_may_lie_in_a_runs_folder_that_does_not_exist_yet(tmp_path: Path) -> None:
    check_free(tmp_path / "runs" / "run" / "trace.json", tmp_path / "runs" / "run")
