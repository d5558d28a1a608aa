"""`wdmoe replay` on a schedule, as a separate process against a server that does almost nothing.

Latencies are read from the run's files.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from orchestrator.process.root import ROOT
from orchestrator.replay.arrivals import choose
from orchestrator.results.run_folder import read_requests, read_run, read_summary
from orchestrator.results.schema import Request
from tests.harness.replay_stack import SLOW_S, prompt, received

pytestmark = pytest.mark.slow


@pytest.fixture
def elsewhere() -> Iterator[str]:
    """Yield the URL of the same server in a process of its own, which does not slow the sender."""
    command = [sys.executable, "-m", "uvicorn", "tests.harness.replay_stack:app", "--port", "0"]
    command += ["--no-access-log"]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr is not None
        line = next(line for line in server.stderr if "running on" in line)
        yield next(word for word in line.split() if word.startswith("http://"))
        server.terminate()


def start(url: str, *arguments: str) -> subprocess.Popen[str]:
    command = [str(Path(sys.executable).parent / "wdmoe"), "replay", *arguments, "--json"]
    urls = {"WDMOE_BS_URL": url, "WDMOE_ORCHESTRATOR_URL": url}
    # Use this checkout, whichever package is installed.
    env = {**os.environ, **urls, "PYTHONPATH": str(ROOT)}
    pipe = subprocess.PIPE
    return subprocess.Popen(
        command,
        env=env,
        stdout=pipe,
        stderr=pipe,
        text=True,
        # A background job of a shell may have inherited an ignored SIGINT.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def run(url: str, *arguments: str) -> dict[str, Any]:
    process = start(url, *arguments)
    out, err = process.communicate()
    assert process.returncode == 0, err
    summary: dict[str, Any] = json.loads(out)
    return summary


def prompts_file(folder: Path, *texts: str) -> str:
    path = folder / "mine.jsonl"
    items = [prompt(f"{text} {n}") for n, text in enumerate(texts)]
    path.write_text("".join(item.model_dump_json() + "\n" for item in items))
    return f"jsonl:{path}"


def at_once(requests: list[Request]) -> int:
    """Return the largest number of requests in flight at the same time, by their own times."""
    return max(
        sum(
            other.actual_start_s <= request.actual_start_s
            and request.actual_start_s < other.intended_start_s + other.end_to_end_s
            for other in requests
        )
        for request in requests
    )


def sent(url: str, folder: Path, rate_per_s: float) -> tuple[bool, Any]:
    """Run 1000 Poisson arrivals; return whether they left as drawn, and their dispatch delays."""
    out = folder / "run"
    options = ("--arrivals", "poisson", "--rate", str(rate_per_s), "--seed", "1", "--warmup", "5")
    summary = run(url, prompts_file(folder, *["ok"] * 1000), *options, "--out", str(out))
    requests = sorted(read_requests(out), key=lambda request: request.id)
    assert [request.id for request in requests] == list(range(1000))
    intended_s = np.array([request.intended_start_s for request in requests])
    drawn = choose("poisson", rate_per_s=rate_per_s, seed=1).starts_s(1000)
    assert intended_s - intended_s[0] == pytest.approx(drawn, abs=1e-5)
    exponential = stats.expon(scale=1 / rate_per_s).cdf
    assert stats.kstest(np.diff(intended_s), exponential).pvalue > 0.05
    actual_s = np.array([request.actual_start_s for request in requests])
    delay_s = actual_s - intended_s
    assert min(delay_s) > -1e-4
    assert np.percentile(delay_s, 99) == pytest.approx(summary["dispatch_delay"]["p99_s"])
    as_drawn = stats.kstest(np.diff(np.sort(actual_s)), exponential).pvalue > 0.01
    return bool(as_drawn), delay_s


def test_a_thousand_poisson_arrivals_leave_as_drawn(elsewhere: str, tmp_path: Path) -> None:
    # A busy host can only delay them, so several attempts are allowed.
    for attempt in range(4):
        folder = tmp_path / str(attempt)
        folder.mkdir()
        as_drawn, delay_s = sent(elsewhere, folder, rate_per_s=100)
        print(f"delay: p50 {np.median(delay_s):.4f} s, p99 {np.percentile(delay_s, 99):.4f} s")
        if as_drawn and np.percentile(delay_s, 90) < 0.005:
            return
    raise AssertionError("no attempt left as drawn with nine of ten within 5 ms")


def test_requests_in_flight_are_bounded_and_still_count_from_their_start(
    url: str, tmp_path: Path
) -> None:
    spec = prompts_file(tmp_path, *["slow"] * 9)
    (tmp_path / "burst").write_text("0\n" * 9)
    burst = ("--arrivals", f"trace:{tmp_path / 'burst'}")
    free, bound = tmp_path / "free", tmp_path / "bound"
    summary = run(url, spec, *burst, "--out", str(free))
    assert summary["in_flight"]["most"] == 9
    summary = run(url, spec, *burst, "--concurrency", "3", "--out", str(bound))
    requests = read_requests(bound)
    assert len({request.intended_start_s for request in requests}) == 1
    assert at_once(requests) == 3
    assert summary["in_flight"]["most"] == 3
    # The last ones wait for two answers before them, which counts as part of their latency.
    assert max(request.end_to_end_s for request in requests) >= 3 * SLOW_S
    assert summary["dispatch_delay"]["p50_s"] >= 0.9 * SLOW_S


def test_a_closed_loop_keeps_its_concurrency_in_flight(url: str, tmp_path: Path) -> None:
    spec, out = prompts_file(tmp_path, *["slow"] * 9), tmp_path / "run"
    summary = run(url, spec, "--concurrency", "4", "--out", str(out), "--goodput-limit-s", "99")
    assert at_once(read_requests(out)) == 4
    assert summary["n"] == 9
    assert summary["goodput"]["share"] == 1
    assert summary["arrivals"]["kind"] == "closed"


def test_warm_up_is_sent_first_and_only_its_count_is_recorded(url: str, tmp_path: Path) -> None:
    spec, out = prompts_file(tmp_path, "ok", "mute"), tmp_path / "run"
    received.clear()
    summary = run(url, spec, "--warmup", "3", "--shuffle-seed", "5", "--out", str(out))
    sent = [body["prompt"] for body in received]
    order = [request.prompt_id.removeprefix("id-") for request in read_requests(out)]
    assert sent == [*order, order[0], *order]
    assert (summary["n"], summary["warmup"]) == (2, 3)
    recorded = read_run(out)
    assert (recorded.warmup, recorded.prompts.shuffle_seed) == (3, 5)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_resumed_poisson_run_sends_every_request_once(
    url: str, tmp_path: Path, number: signal.Signals
) -> None:
    spec, out = prompts_file(tmp_path, *["slow", "ok"] * 40), tmp_path / "run"
    options = ("--arrivals", "poisson", "--rate", "30", "--seed", "2", "--out", str(out))
    process = start(url, spec, *options)
    lines = out / "requests.jsonl"
    while not lines.exists() or lines.read_bytes().count(b"\n") < 20:
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    process.send_signal(number)
    process.communicate(timeout=30)
    assert process.returncode != 0
    before = read_requests(out)
    assert 20 <= len(before) < 80
    assert not (out / "summary.json").exists()

    summary = run(url, spec, *options, "--resume")
    requests = read_requests(out)
    assert requests[: len(before)] == before
    assert sorted(request.id for request in requests) == list(range(80))
    drawn = choose("poisson", rate_per_s=30, seed=2).starts_s(80)
    assert drawn is not None
    resumed = sorted(requests[len(before) :], key=lambda request: request.id)
    for first, second in itertools.pairwise(resumed):
        gap_s = drawn[second.id] - drawn[first.id]
        assert second.intended_start_s - first.intended_start_s == pytest.approx(gap_s, abs=1e-5)
    assert (summary["n"], summary["errors"], summary["requests_per_s"]) == (80, 0, None)
    assert read_summary(out).n == 80


def test_a_run_resumes_with_its_own_schedule_only(url: str, tmp_path: Path) -> None:
    spec, out = prompts_file(tmp_path, "ok", "ok"), tmp_path / "run"
    options = ("--arrivals", "poisson", "--rate", "30", "--out", str(out))
    run(url, spec, *options, "--seed", "2")
    process = start(url, spec, *options, "--seed", "3", "--resume")
    _, err = process.communicate()
    assert process.returncode == 2
    *_, line = err.splitlines()  # after the line that describes the schedule
    assert line.endswith("run.json: arrivals.seed was 2, it is 3 now; allowed: the same")
