"""The progress of a replay at the orchestrator: over HTTP, in Prometheus, in `status`."""

from __future__ import annotations

import math
from typing import Any

import httpx
import pytest
from prometheus_client import CollectorRegistry

from orchestrator.contracts.replay_progress import Progress
from orchestrator.control.replay_board import SILENT_AFTER_S, ReplayBoard
from orchestrator.metrics import orchestrator_metrics
from tests.harness.command import Wdmoe

PROGRESS: dict[str, Any] = {
    "prompts": "arithmetic",
    "planned": 20,
    "done": 13,
    "failed": 1,
    "scored": 12,
    "score_sum": 11.0,
    "running": True,
}


def exported(url: str) -> dict[str, float]:
    lines = httpx.get(f"{url}/metrics").text.splitlines()
    pairs = (line.rsplit(" ", 1) for line in lines if line.startswith("wdmoe_replay"))
    return {name.removeprefix("wdmoe_replay_"): float(value) for name, value in pairs}


def test_before_any_replay_there_is_no_progress(orchestrator: str, wdmoe: Wdmoe) -> None:
    assert httpx.get(f"{orchestrator}/status").json()["replay"] is None
    assert "replay" not in wdmoe("status").out
    values = exported(orchestrator)
    assert math.isnan(values.pop("accuracy_ratio"))
    assert values.pop("info") == 1  # without a label
    assert set(values.values()) == {0}


def test_progress_is_shown_and_stays_after_the_end(orchestrator: str, wdmoe: Wdmoe) -> None:
    def report(**fields: Any) -> None:
        assert httpx.post(f"{orchestrator}/replay", json=PROGRESS | fields).status_code == 204

    report()
    assert exported(orchestrator) == {
        'info{prompts="arithmetic"}': 1,
        "running": 1,
        "planned_requests": 20,
        "done_requests": 13,
        "failed_requests": 1,
        "accuracy_ratio": pytest.approx(11 / 12),
    }
    status = httpx.get(f"{orchestrator}/status").json()["replay"]
    assert status == PROGRESS | {"accuracy": pytest.approx(11 / 12)}
    assert "replay   arithmetic 13 of 20, 1 failed, 91.7 % right\n" in wdmoe("status").out

    report(running=False)
    assert "replay   arithmetic 13 of 20, 1 failed, 91.7 % right, stopped\n" in wdmoe("status").out
    assert (exported(orchestrator)["running"], exported(orchestrator)["done_requests"]) == (0, 13)

    report(prompts="code", planned=2, done=2, failed=0, scored=0, score_sum=0.0, running=False)
    assert "replay   code 2 of 2, ended\n" in wdmoe("status").out
    values = exported(orchestrator)
    assert math.isnan(values["accuracy_ratio"])
    assert [name for name in values if name.startswith("info")] == ['info{prompts="code"}']


def test_a_silent_replay_counts_as_ended() -> None:
    clock = [100.0]
    registry = CollectorRegistry()
    board = ReplayBoard(orchestrator_metrics(registry), lambda: clock[0])

    def running() -> tuple[float | None, bool]:
        status = board.status()
        assert status is not None
        return registry.get_sample_value("wdmoe_replay_running"), status.running

    board.take(Progress(**PROGRESS))
    clock[0] += SILENT_AFTER_S - 0.1
    assert running() == (1, True)
    clock[0] += 0.1
    assert running() == (0, False)
    board.take(Progress(**PROGRESS))  # it was only slow
    assert running() == (1, True)


@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        ({"done": "13"}, "done: Input should be a valid integer"),
        ({"done": -1}, "done: Input should be greater than or equal to 0"),
        ({"planned": 12}, "body: Value error, allowed: failed + scored <= done <= planned"),
        ({"scored": 13}, "body: Value error, allowed: failed + scored <= done <= planned"),
        ({"score_sum": 12.5}, "body: Value error, allowed: score_sum <= scored"),
        ({"prompts": "x" * 257}, "prompts: String should have at most 256 characters"),
        ({"prompts": "\x1b[2Jx"}, "prompts: Value error, allowed: printable characters"),
        ({"label": "x"}, "label: Extra inputs are not permitted"),
    ],
)
def test_a_bad_body_is_refused_and_changes_nothing(
    orchestrator: str, fields: dict[str, Any], fault: str
) -> None:
    refused = httpx.post(f"{orchestrator}/replay", json=PROGRESS | fields)
    assert (refused.status_code, refused.json()["detail"]) == (400, f"POST /replay: {fault}")
    assert httpx.get(f"{orchestrator}/status").json()["replay"] is None


def test_a_body_that_is_too_long_is_refused(orchestrator: str) -> None:
    refused = httpx.post(f"{orchestrator}/replay", json=PROGRESS | {"prompts": "x" * 4096})
    assert refused.status_code == 413
