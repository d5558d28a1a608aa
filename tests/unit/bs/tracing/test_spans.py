"""The trace of a request, through a real engine and real devices."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.contracts.clock_offset import shift_into
from services.bs.batch.expert_call import ExpertCall
from services.bs.engine.request import Event, Piece
from services.bs.tracing.spans import LayerTrace, RequestTrace, Span, StepTrace
from services.net import wire
from tests.harness.cell import Cell, emulating
from tests.harness.engine_room import Answer, EngineRoom, asking
from tests.harness.traced import check_spans


def traced(prompt: list[int], max_tokens: int = 4, **fields: Any) -> Answer:
    answer = asking([prompt], max_tokens, **fields)
    answer.request.trace = RequestTrace(answer.request.arrived_s)
    return answer


def spans(answer: Answer) -> list[Span]:
    trace = answer.request.trace
    assert trace is not None
    return trace.record().spans()


def named(answer: Answer, name: str) -> list[Span]:
    return [span for span in spans(answer) if span.name == name]


def test_the_spans_of_a_request_nest_and_add_up_to_it(room: EngineRoom) -> None:
    answer = traced([1, 2, 3], 5)
    room.serve(answer)
    recorded, timings = spans(answer), answer.end.timings
    check_spans(recorded)
    assert recorded[0].end_ns == pytest.approx(timings.end_to_end_s * 1e9, abs=2)
    parts = sum(span.end_ns - span.start_ns for span in recorded if span.depth == 1)
    assert parts == recorded[0].end_ns
    assert [step.attributes["tokens"] for step in named(answer, "step")] == [3, 1, 1, 1, 1]
    layers = named(answer, "layer")
    assert [layer.attributes["layer"] for layer in layers] == [0, 1, 2] * 5
    trips = named(answer, "round_trip")
    assert len(trips) == timings.device_messages
    used = {str(q): 0 for q in range(4)}
    for trip in trips:
        used[str(trip.attributes["device"])] += int(trip.attributes["tokens"])
        assert int(trip.attributes["sent_bytes"]) > 64 * int(trip.attributes["tokens"])
        assert int(trip.attributes["answer_bytes"]) > 64 * int(trip.attributes["tokens"])
    assert {q: n for q, n in used.items() if n} == timings.experts.used
    forward = sum(span.end_ns - span.start_ns for span in named(answer, "step"))
    layered = sum(span.end_ns - span.start_ns for span in layers)
    assert forward - layered == pytest.approx(timings.trunk_s * 1e9, rel=0.1)


def test_a_step_is_in_the_trace_of_each_request_that_takes_part(room: EngineRoom) -> None:
    long, short, untraced = traced([1, 2], 6), traced([3], 2), asking([[4, 5, 6]], 2)
    room.serve(long, short, untraced)
    for answer in (long, short):
        check_spans(spans(answer))
    first = [named(answer, "step")[0].attributes for answer in (long, short)]
    shared = {"step": 0, "tokens": 6, "sequences": 3}
    assert first == [shared | {"own_tokens": 2}, shared | {"own_tokens": 1}]
    assert len(named(long, "step")) == 6
    assert len(named(short, "step")) == 2
    assert untraced.end.trace is None


def test_a_device_that_does_not_answer_has_a_round_trip_without_parts(cell: Cell) -> None:
    cell.channel.state = emulating(flops=1e15)
    for q in range(3):
        cell.start(q)
    silent = cell.socket(3)
    silent.send_multipart(wire.encode(cell.hello(3)))
    cell.admit(0, 1, 2, 3)
    answer = traced(list(range(40)), 1)
    EngineRoom(cell).serve(answer)
    check_spans(spans(answer))
    (lost,) = [span for span in named(answer, "round_trip") if not span.attributes["answered"]]
    assert lost.attributes["device"] == 3
    assert lost.end_ns - lost.start_ns >= 1.5e9
    layers = named(answer, "layer")
    assert layers[0].attributes["lost"] == lost.attributes["tokens"]
    assert sum(int(layer.attributes["lost"]) for layer in layers) == sum(
        answer.end.timings.experts.dropped.values()
    )


def test_a_client_that_leaves_ends_the_trace(room: EngineRoom) -> None:
    def leave(event: Event) -> None:
        if isinstance(event, Piece) and len(gone.events) == 3:
            gone.request.cancelled = True

    gone, queued = traced([1, 2], 500, also=leave), traced([3], 500)
    queued.request.cancelled = True
    room.serve(gone, queued)
    for answer in (gone, queued):
        assert answer.request.trace is not None
        assert answer.request.trace.record().error == "cancelled"
        check_spans(spans(answer))
    assert len(named(gone, "step")) == 3
    assert [span.name for span in spans(queued)] == ["request", "queue"]


def test_the_trace_of_a_long_request_is_bounded(
    room: EngineRoom, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.bs.tracing.spans.MAX_SPANS", 200)
    answer = traced([1, 2], 30)
    room.serve(answer)
    recorded = spans(answer)
    check_spans(recorded)
    assert len(recorded) <= 200 + 2
    (rest,) = named(answer, "not_recorded")
    assert rest == recorded[-1]
    assert len(named(answer, "step")) + int(rest.attributes["steps"]) == 30


times = st.floats(1e-3, 1e6)


@given(st.tuples(times, times).map(sorted), st.tuples(*[times] * 4).map(sorted))
def test_the_parts_of_a_device_nest_whatever_its_clock_is(
    at_the_station: list[float], at_the_device: list[float]
) -> None:
    sent_s, arrived_s = at_the_station
    received_s, started_s, finished_s, back_s = at_the_device
    output = wire.Payload.of(torch.zeros(1, 1), "fp32")
    done = wire.Done(0, output, b"", received_s, started_s, finished_s, back_s, overrun=False)
    job = ExpertCall(2, torch.tensor([0]), torch.tensor([0]), sent_s, 0.0, 9, 9, done, arrived_s)
    trip = job.round_trip(arrived_s)
    trace, step = RequestTrace(sent_s), StepTrace(1, 1, sent_s, arrived_s)
    before, after = (sent_s, sent_s, sent_s, sent_s), (arrived_s, arrived_s)
    step.layers.append(LayerTrace(0, *before, *after, 0, 0, [trip]))
    trace.add(step, 1)
    trace.end(arrived_s)
    check_spans(trace.record().spans())


@given(st.integers(), st.integers(0), st.integers(), st.integers(0))
def test_two_clocks_are_aligned_only_if_they_differ(
    start: int, longer: int, inner: int, long: int
) -> None:
    outer = start, start + long + longer
    shift = shift_into(outer, (inner, inner + long))
    if outer[0] <= inner <= inner + long <= outer[1]:
        assert shift == 0
    assert outer[0] <= inner + shift <= inner + shift + long <= outer[1]
