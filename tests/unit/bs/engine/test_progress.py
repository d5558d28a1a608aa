"""What the base station exports: requests that have not ended, and chosen metrics."""

from __future__ import annotations

from typing import Any

import httpx

from orchestrator.contracts.http import Requests
from services.bs.engine.request import Event, Piece
from tests.harness.engine_room import EngineRoom, asking
from tests.harness.parrot import Http, Parrot


def counts(standing: Requests) -> list[tuple[int, int, int, int]]:
    return [
        (request.sequences, request.prompt_tokens, request.completion_tokens, request.max_tokens)
        for request in standing.running
    ]


def test_requests_wait_then_run_then_are_gone(room: EngineRoom) -> None:
    seen: list[Requests] = []

    def look(event: Event) -> None:
        if isinstance(event, Piece):
            seen.append(room.engine.standing())

    answer = asking([[1, 2], [1, 3, 4]], 3, look)
    room.engine.submit(answer.request)
    (waits,) = room.engine.standing().waiting
    assert (waits.prompt_tokens, waits.completion_tokens, waits.max_tokens) == (5, 0, 6)
    room.serve()
    assert room.engine.standing() == Requests(running=[], waiting=[])
    assert all(standing.waiting == [] for standing in seen)
    assert {count[:2] + count[3:] for standing in seen for count in counts(standing)} == {(2, 5, 6)}
    made = [count[2] for standing in seen for count in counts(standing)]
    assert made[0] == 1
    assert made[:-1] == sorted(made[:-1])
    assert all(request.age_s >= 0 for standing in seen for request in standing.running)


def test_no_text_of_a_prompt_is_exported(http: Http, parrot: Parrot) -> None:
    http.complete("secret", max_tokens=3)
    payload: dict[str, Any] = httpx.get(f"{http.url}/requests", trust_env=False).json()
    assert payload["waiting"] == []
    (request,) = payload["running"]
    assert request.keys() == {
        *("id", "sequences", "prompt_tokens", "completion_tokens", "max_tokens", "age_s")
    }
    assert request["id"] == parrot.requests[0].id
    assert "secret" not in str(payload)


def test_metrics_can_be_selected_by_name(http: Http) -> None:
    names = ["process_cpu_seconds_total", "process_open_fds"]
    text = httpx.get(f"{http.url}/metrics", params={"name[]": names}, trust_env=False).text
    samples = [line.split()[0] for line in text.splitlines() if not line.startswith("#")]
    assert sorted(samples) == names
    assert len(httpx.get(f"{http.url}/metrics", trust_env=False).text) > len(text)
