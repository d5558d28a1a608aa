"""What the base station tells those who watch: requests that have not ended, chosen metrics."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from services.bs.engine.progress import RequestsInProgress
from services.bs.engine.request import Event, Piece
from tests.harness.cell import Cell, emulating
from tests.harness.engine_room import EngineRoom, asking
from tests.harness.parrot import Http, Parrot


@pytest.fixture
def room(cell: Cell) -> EngineRoom:
    cell.channel.state = emulating(flops=1e15)
    cell.start_all()
    return EngineRoom(cell)


def counts(standing: RequestsInProgress) -> list[tuple[int, int, int, int]]:
    return [
        (one.sequences, one.prompt_tokens, one.completion_tokens, one.max_tokens)
        for one in standing.running
    ]


def test_requests_wait_then_run_then_are_gone(room: EngineRoom) -> None:
    seen: list[RequestsInProgress] = []

    def look(event: Event) -> None:
        if isinstance(event, Piece):
            seen.append(room.engine.standing())

    asked = asking([[1, 2], [1, 3, 4]], 3, look)
    room.engine.submit(asked.request)
    (waits,) = room.engine.standing().waiting
    assert (waits.prompt_tokens, waits.completion_tokens, waits.max_tokens) == (5, 0, 6)
    room.serve()
    assert room.engine.standing() == RequestsInProgress([], [])
    assert all(standing.waiting == [] for standing in seen)
    assert {one[:2] + one[3:] for standing in seen for one in counts(standing)} == {(2, 5, 6)}
    made = [one[2] for standing in seen for one in counts(standing)]
    assert made[0] == 1
    assert made[:-1] == sorted(made[:-1])
    assert all(one.age_s >= 0 for standing in seen for one in standing.running)


def test_nothing_of_a_prompt_is_told(http: Http, parrot: Parrot) -> None:
    http.complete("secret", max_tokens=3)
    told: dict[str, Any] = httpx.get(f"{http.url}/requests", trust_env=False).json()
    assert told["waiting"] == []
    (one,) = told["running"]
    assert one.keys() == {
        *("id", "sequences", "prompt_tokens", "completion_tokens", "max_tokens", "age_s")
    }
    assert one["id"] == parrot.requests[0].id
    assert "secret" not in str(told)


def test_metrics_can_be_asked_for_by_name(http: Http) -> None:
    names = ["process_cpu_seconds_total", "process_open_fds"]
    told = httpx.get(f"{http.url}/metrics", params={"name[]": names}, trust_env=False).text
    samples = [line.split()[0] for line in told.splitlines() if not line.startswith("#")]
    assert sorted(samples) == names
    assert len(httpx.get(f"{http.url}/metrics", trust_env=False).text) > len(told)
