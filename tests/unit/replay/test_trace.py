"""`wdmoe replay --trace-file` against the server of `replay_stack`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from orchestrator.process.root import ROOT
from tests.harness.replay_stack import prompt, received
from tests.harness.traced import check_chrome

pytestmark = pytest.mark.slow


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "trace.json"


def start(url: str, file: Path, *arguments: str, prompts: list[str]) -> subprocess.Popen[str]:
    """Start a replay that writes its trace to `file`, and its run to a folder beside it."""
    items = file.with_name("mine.jsonl")
    lines = [prompt(f"{text} {n}").model_dump_json() for n, text in enumerate(prompts)]
    items.write_text("\n".join(lines))
    out = ("--out", str(file.with_name("run")), "--trace-file", str(file))
    wdmoe = str(Path(sys.executable).parent / "wdmoe")
    urls = {"WDMOE_BS_URL": url, "WDMOE_ORCHESTRATOR_URL": url, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [wdmoe, "replay", f"jsonl:{items}", *out, *arguments],
        env={**os.environ, **urls},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def ran(url: str, file: Path, *arguments: str, prompts: list[str]) -> tuple[int, str]:
    """Run such a replay; return its exit code and standard error."""
    process = start(url, file, *arguments, prompts=prompts)
    _, err = process.communicate(timeout=60)
    return process.returncode, err


def events(file: Path, phase: str, pid: int) -> list[dict[str, Any]]:
    document = json.loads(file.read_bytes())
    check_chrome(document)
    return [item for item in document["traceEvents"] if (item["ph"], item["pid"]) == (phase, pid)]


def test_every_recorded_request_is_in_the_trace(url: str, file: Path) -> None:
    code, err = ran(url, file, "--warmup", "2", prompts=["ok", "slow", "ok"])
    assert (code, err) == (0, "")
    begun = [event["name"] for event in events(file, "b", 1)]
    once = ["HTTP", "base station", "queue", "step 0", "between"]
    assert [name for name in begun if name != "dispatch delay"] == [
        *("id-ok 0", *once, "id-slow 1", *once, "id-ok 2", *once)
    ]
    assert len(events(file, "X", 2)) == 2 * 3
    trips = events(file, "X", 3)
    assert len(trips) == 6 * 3
    assert {trip["tid"] for trip in trips} == {4 + 2}


def test_a_request_whose_trace_is_missing_has_the_clients_spans(url: str, file: Path) -> None:
    code, err = ran(url, file, prompts=["ok", "opaque", "broken"])
    assert code == 1
    assert "2 of 3 requests failed, the first (id-opaque 1): the stream ended without trace" in err
    begun = [event for event in events(file, "b", 1) if event["name"].startswith("id-")]
    assert ["error" in event["args"] for event in begun] == [False, True, True]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_the_file_is_valid_after_a_run_was_ended(
    url: str, file: Path, number: signal.Signals
) -> None:
    process = start(url, file, prompts=["slow"] * 100)
    lines = file.with_name("run") / "requests.jsonl"
    while not lines.exists() or lines.read_bytes().count(b"\n") < 3:
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    process.send_signal(number)
    process.communicate(timeout=30)
    assert process.returncode != 0
    assert len([e for e in events(file, "b", 1) if e["name"] == "HTTP"]) >= 3


def test_the_file_may_lie_in_the_runs_folder(url: str, file: Path) -> None:
    inside = file.with_name("run") / "trace.json"
    code, err = ran(url, file, "--trace-file", str(inside), prompts=["ok"])
    assert (code, err) == (0, "")
    assert len([e for e in events(inside, "b", 1) if e["name"] == "HTTP"]) == 1


def test_an_existing_file_is_refused_and_nothing_is_sent(url: str, file: Path) -> None:
    file.write_text("mine")
    received.clear()
    code, err = ran(url, file, prompts=["ok"])
    assert (code, len(err.splitlines())) == (2, 1)
    assert err.endswith(f"trace file {file}: exists already; allowed: a new file\n")
    assert file.read_text() == "mine"
    assert received == []
    assert not file.with_name("run").exists()


def test_an_unreachable_stack_leaves_no_file(file: Path) -> None:
    code, err = ran("http://127.0.0.1:9", file, prompts=["ok"])
    assert code == 1
    assert "does not answer" in err
    assert not file.exists()
