"""Traces over OTLP, with a collector and without one."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest

from orchestrator.errors import InputError
from services.bs import __main__ as station
from services.bs.tracing.otlp import OtlpTraces
from services.bs.tracing.spans import RequestTrace
from tests.harness.cell import Cell, emulating
from tests.harness.collector import Collector, Trace, attributes, collecting
from tests.harness.engine_room import Answer, EngineRoom, asking
from tests.harness.traced import check_spans

pytestmark = pytest.mark.slow

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
TRACE_ID, PARENT_ID = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    with collecting() as collector:
        monkeypatch.setenv(ENDPOINT, collector.url)
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
        yield collector


@pytest.fixture
def otlp(collector: Collector) -> Iterator[OtlpTraces]:
    with closing(OtlpTraces("tiny")) as otlp:
        yield otlp


def traced(otlp: OtlpTraces, max_tokens: int = 4, **headers: str) -> Answer:
    answer = asking([[1, 2, 3]], max_tokens)
    request = answer.request
    about: dict[str, Any] = {"gen_ai.response.id": request.id}
    request.trace = otlp.begin(headers, "text_completion", request.arrived_s, about)
    return answer


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 300
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def exported(collector: Collector, count: int) -> list[Trace]:
    until(lambda: len(collector.whole()) == count)
    return collector.whole()


def test_every_request_is_a_trace_that_nests_and_adds_up(
    room: EngineRoom, collector: Collector, otlp: OtlpTraces
) -> None:
    answers = [traced(otlp) for _ in range(3)]
    room.serve(*answers)
    by_request = {
        attributes(trace.root)["gen_ai.response.id"]: trace for trace in exported(collector, 3)
    }
    for answer in answers:
        trace = by_request[answer.request.id]
        spans, root = trace.reported_spans(), trace.root
        check_spans(spans)
        took_ns = root.end_time_unix_nano - root.start_time_unix_nano
        assert took_ns == pytest.approx(answer.end.timings.end_to_end_s * 1e9, abs=2)
        parts = [(start, end) for depth, _, start, end, _ in spans if depth == 1]
        assert sum(end - start for start, end in parts) == took_ns
        assert abs(root.end_time_unix_nano / 1e9 - time.time()) < 60
        assert trace.services == {"wdmoe-bs"}
        assert root.name == "text_completion tiny"
        assert root.kind == root.SPAN_KIND_SERVER
        assert not root.parent_span_id
        about = attributes(root)
        assert about["gen_ai.operation.name"] == "text_completion"
        assert about["gen_ai.request.model"] == "tiny"
        assert about["gen_ai.usage.output_tokens"] == 4
        assert answer.request.trace is not None
        assert len(spans) == len(answer.request.trace.record().spans())


def test_a_trace_continues_the_trace_of_its_client(
    room: EngineRoom, collector: Collector, otlp: OtlpTraces
) -> None:
    sampled = traced(otlp, traceparent=f"00-{TRACE_ID}-{PARENT_ID}-01")
    left_out = traced(otlp, traceparent=f"00-{TRACE_ID}-{PARENT_ID}-00")
    broken = traced(otlp, traceparent="00-nonsense")
    assert left_out.request.trace is None
    room.serve(sampled, left_out, broken)
    continued, own = sorted(exported(collector, 2), key=lambda trace: not trace.root.parent_span_id)
    assert continued.root.trace_id.hex() == TRACE_ID
    assert continued.root.parent_span_id.hex() == PARENT_ID
    assert own.root.trace_id.hex() != TRACE_ID


def test_a_trace_of_more_spans_than_the_exporter_holds_is_complete(
    room: EngineRoom, collector: Collector, otlp: OtlpTraces
) -> None:
    answer = traced(otlp, max_tokens=80)
    room.serve(answer)
    (trace,) = exported(collector, 1)
    spans = trace.reported_spans()
    check_spans(spans)
    assert answer.request.trace is not None
    assert len(spans) == len(answer.request.trace.record().spans()) > 2048


def test_the_trace_of_a_failed_request_has_its_error(
    cell: Cell, collector: Collector, otlp: OtlpTraces
) -> None:
    cell.channel.state = emulating(flops=1e15)
    answer = traced(otlp)
    EngineRoom(cell).serve(answer)
    (trace,) = exported(collector, 1)
    assert trace.root.status.code == trace.root.status.STATUS_CODE_ERROR
    assert trace.root.status.message == answer.failure == "no device can be reached"
    assert "gen_ai.usage.output_tokens" not in attributes(trace.root)


def test_a_base_station_that_is_stopped_exports_its_last_traces(
    collector: Collector,
) -> None:
    command = [sys.executable, "-m", "tests.harness.traced_station"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "serving\n"
        exported(collector, 1)
        process.terminate()
    assert process.returncode == 128 + signal.SIGTERM
    assert {trace.root.name for trace in collector.whole()} == {"first tiny", "last tiny"}


def test_a_collector_that_is_away_costs_traces_and_no_request(
    room: EngineRoom, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(ENDPOINT, "http://127.0.0.1:9")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "0.2")
    monkeypatch.setattr("services.bs.tracing.otlp.MAX_WAITING", 1)
    with closing(OtlpTraces("tiny")) as otlp:
        answers = [traced(otlp, max_tokens=60) for _ in range(8)]
        room.serve(*answers)
    assert [answer.end.completion_tokens for answer in answers] == [60] * 8
    lines = [line for line in capsys.readouterr().out.splitlines() if "traces" in line]
    assert len(lines) == 1
    assert "dropped so far" in lines[0]


def test_after_its_exporter_has_died_the_base_station_serves_without_traces(
    room: EngineRoom, otlp: OtlpTraces, capsys: pytest.CaptureFixture[str]
) -> None:
    otlp._exporter.kill()
    otlp._exporter.wait()
    answers = [traced(otlp)]
    room.serve(*answers)
    until(lambda: otlp._over)
    answers += [traced(otlp) for _ in range(2)]
    assert [answer.request.trace for answer in answers[1:]] == [None, None]
    room.serve(*answers[1:])
    assert [answer.end.completion_tokens for answer in answers] == [4] * 3
    assert capsys.readouterr().out.count("no more traces until the base station is started") == 1


def test_without_a_collector_nothing_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ENDPOINT, raising=False)
    monkeypatch.setitem(sys.modules, "services.bs.tracing.otlp", None)  # cannot be imported
    assert station.otlp("tiny") is None
    monkeypatch.setenv(ENDPOINT, "")  # as compose has it
    assert station.otlp("tiny") is None


def test_an_endpoint_that_is_no_url_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENDPOINT, "collector:4318")
    with pytest.raises(InputError, match="OTEL_EXPORTER_OTLP_ENDPOINT is 'collector:4318'"):
        station.otlp("tiny")


def test_only_the_first_end_of_a_request_counts() -> None:
    heard: list[RequestTrace] = []
    trace = RequestTrace(1.0, heard.append)
    trace.end(2.0)
    trace.end(3.0, error="later")
    assert heard == [trace]
    assert (trace.record().ended_s, trace.record().error) == (2.0, None)
