"""Measurements reach a real Prometheus and a replay's run folder."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.stack.conftest import EXPERTS, Stack, until, wdmoe


@pytest.fixture(scope="module", autouse=True)
def traffic(stack: Stack) -> None:
    """Send requests before and after a scrape: a rate needs two samples."""
    stack.use("near-far")
    for _ in range(3):
        stack.complete("What is 120 + 45?", max_tokens=8)
    until(lambda: stack.query("wdmoe_requests_total > 0"), "the first requests are scraped")
    for _ in range(3):
        stack.complete("What is 120 + 45?", max_tokens=8)


def value(stack: Stack, expression: str) -> float:
    """Wait until a query returns a number, and return it."""
    until(lambda: _number(stack, expression) is not None, expression, 30)
    number = _number(stack, expression)
    assert number is not None
    return number


def _number(stack: Stack, expression: str) -> float | None:
    result = stack.query(expression)
    number = float(result[0]["value"][1]) if result else float("nan")
    return None if number != number else number


def test_the_95th_percentile_of_latency_is_available(stack: Stack) -> None:
    rate = "sum by (le) (rate(wdmoe_request_seconds_bucket[2m]))"
    assert 0 < value(stack, f"histogram_quantile(0.95, {rate})") < 60


@pytest.mark.parametrize("part", ["downlink", "compute", "uplink"])
@pytest.mark.parametrize("device", range(EXPERTS))
def test_per_device_times_are_available(stack: Stack, part: str, device: int) -> None:
    name = f"wdmoe_{part}_seconds"
    rate = (
        f'rate({name}_sum{{device="{device}"}}[2m]) / rate({name}_count{{device="{device}"}}[2m])'
    )
    assert 0 < value(stack, rate) < 10


def test_requested_and_applied_rates_agree(stack: Stack) -> None:
    for q in range(EXPERTS):
        for direction in ("down", "up"):
            labels = f'{{device="{q}",direction="{direction}"}}'
            requested = value(stack, f"wdmoe_link_requested_rate_bps{labels}")
            assert value(stack, f"wdmoe_link_applied_rate_bps{labels}") == pytest.approx(
                requested, rel=1e-3
            )


@pytest.fixture(scope="module")
def replay(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("runs") / "run"
    summary = stack.wdmoe("replay", "compare", "--limit", "5", "--out", str(folder))
    return folder, summary


def test_a_replay_leaves_a_complete_run_folder(
    stack: Stack, replay: tuple[Path, dict[str, Any]]
) -> None:
    folder, summary = replay
    run = json.loads((folder / "run.json").read_text())
    requests = [json.loads(line) for line in (folder / "requests.jsonl").read_text().splitlines()]
    assert json.loads((folder / "summary.json").read_text()) == summary
    assert len(requests) == 5
    assert stack.health()["model"]["fingerprint"] in json.dumps(run)
    assert stack.status()["profile_sha256"] in json.dumps(run)


def test_the_parts_of_each_request_add_up(replay: tuple[Path, dict[str, Any]]) -> None:
    for line in (replay[0] / "requests.jsonl").read_text().splitlines():
        timings = json.loads(line)["timings"]
        parts = [
            timings[f"{part}_s"]
            for part in (
                *("queue", "gate", "selection", "downlink", "compute", "uplink"),
                *("wait", "combine", "trunk", "overhead"),
            )
        ]
        assert sum(parts) == pytest.approx(timings["end_to_end_s"], rel=1e-6)
        assert all(part >= 0 for part in parts)


def test_a_finished_run_is_not_overwritten(replay: tuple[Path, dict[str, Any]]) -> None:
    done = wdmoe("replay", "compare", "--limit", "1", "--out", str(replay[0]))
    assert done.returncode == 2
    assert str(replay[0]) in done.stderr
