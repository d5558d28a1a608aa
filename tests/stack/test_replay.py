"""Replays on the running stack: scheduled, killed and resumed, compared."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.stack.conftest import ENVIRONMENT, PATIENCE_S, Stack, until

PROMPTS = 30


@pytest.fixture(autouse=True)
def _unshaped(stack: Stack) -> Iterator[None]:
    """Use unshaped links: these tests are about sending requests."""
    stack.use("ideal")
    yield
    stack.wdmoe("policy", "use", "topk")


def lines(folder: Path) -> list[dict[str, Any]]:
    file = folder / "requests.jsonl"
    return [json.loads(line) for line in file.read_bytes().splitlines()] if file.exists() else []


def test_a_killed_poisson_replay_resumes_and_sends_every_request_once(
    stack: Stack, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    arguments = ["replay", "compare", "--limit", str(PROMPTS), "--out", str(out)]
    arguments += ["--arrivals", "poisson", "--rate", "2", "--seed", "3", "--shuffle-seed", "4"]
    command = [str(Path(sys.executable).parent / "wdmoe"), *arguments]
    with subprocess.Popen(command, env=ENVIRONMENT) as process:
        deadline = time.monotonic() + PATIENCE_S
        while len(lines(out)) < 5:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
    before = lines(out)
    assert 5 <= len(before) < PROMPTS
    until(lambda: not stack.status()["replay"]["running"], "the killed replay counts as ended", 30)
    replay = stack.status()["replay"]
    assert (replay["prompts"], replay["planned"]) == ("compare", PROMPTS)
    assert replay["done"] <= len(before)
    summary = stack.wdmoe(*arguments, "--resume")
    requests = lines(out)
    assert requests[: len(before)] == before
    assert sorted(request["id"] for request in requests) == list(range(PROMPTS))
    assert len({request["prompt_id"] for request in requests}) == PROMPTS
    assert (summary["n"], summary["errors"]) == (PROMPTS, 0)
    assert summary["end_to_end"]["n"] == PROMPTS
    assert summary["end_to_end"]["p99_s"] is None
    replay = stack.status()["replay"]
    assert (replay["done"], replay["failed"], replay["running"]) == (PROMPTS, 0, False)
    assert replay["accuracy"] == summary["accuracy"]
    done = f"wdmoe_replay_done_requests == {PROMPTS} and wdmoe_replay_accuracy_ratio > 0"
    until(lambda: stack.query(done), "the end of the replay is scraped", 30)
    run = json.loads((out / "run.json").read_text())
    seeds = (run["prompts"]["shuffle_seed"], run["arrivals"]["seed"], run["channel"]["seed"])
    assert seeds == (4, 3, stack.status()["seed"])


def test_two_policies_are_compared_on_their_common_prompts(stack: Stack, tmp_path: Path) -> None:
    stack.use("near-far")
    stack.wdmoe("policy", "use", "topk")
    a, b = tmp_path / "a", tmp_path / "b"
    stack.wdmoe("replay", "facts", "--limit", "6", "--warmup", "1", "--out", str(a))
    stack.wdmoe("policy", "use", "top1")
    time.sleep(1)  # the policy applies from the next request on
    stack.wdmoe("replay", "facts", "--limit", "4", "--concurrency", "2", "--out", str(b))
    found = stack.wdmoe("compare", str(a), str(b))
    assert (found["prompts"], found["only_a"], found["only_b"], found["failed"]) == (4, 2, 0, 0)
    fields = {item["field"]: (item["a"], item["b"]) for item in found["differences"]}
    assert fields == {
        "prompts.items": ("6", "4"),
        "channel.policy": ("topk", "top1"),
        "arrivals.concurrency": ("1", "2"),
        "warmup": ("1", "0"),
        "fading": ("a draw for each prompt", "one realisation, draw 0"),
        "fading of prompts": ("not the same for 3 of 4",) * 2,
    }
    assert found["end_to_end"]["n"] == 4
    assert found["end_to_end"]["ratio"]["low"] <= found["end_to_end"]["ratio"]["high"]
    assert found["accuracy"]["n"] == 4


def test_run_code_tests_programs_in_containers(stack: Stack, tmp_path: Path) -> None:
    item = {
        "task_id": "Mine/0",
        "prompt": 'def add(a, b):\n    """The sum."""\n',
        "canonical_solution": "    return a + b\n",
        "test": "def check(candidate):\n    assert candidate(1, 2) == 3\n",
        "entry_point": "add",
    }
    # Correct before generation; the generated text may or may not break it.
    complete = {**item, "task_id": "Mine/1", "prompt": item["prompt"] + "    return a + b\n\n\n# "}
    file, out = tmp_path / "mine.jsonl", tmp_path / "run"
    file.write_text("".join(json.dumps(task) + "\n" for task in (item, complete)))
    summary = stack.wdmoe("replay", f"humaneval:{file}", "--run-code", "--out", str(out))
    results = [json.loads(line) for line in (out / "code.jsonl").read_text().splitlines()]
    assert [result["prompt_id"] for result in results] == ["Mine/0", "Mine/1"]
    passed = [result["outcome"] == "passed" for result in results]
    assert not passed[0]  # the bundled model has never seen a program
    assert summary["scored"] == 2
    assert summary["accuracy"] == sum(passed) / 2
    assert {request["score"] for request in lines(out)} == {None}
