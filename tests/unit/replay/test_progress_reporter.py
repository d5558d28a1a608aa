"""Progress reports of a replay: at its start, about once a second, and at its end."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.client import client
from orchestrator.contracts.replay_progress import Progress
from orchestrator.errors import InputError
from orchestrator.prompts.prompt_sets import PromptSet
from orchestrator.replay.progress_reporter import EVERY_S, Tally
from orchestrator.results.schema import Request
from tests.harness import recorded_runs
from tests.harness.control_plane import eventually
from tests.harness.recorded_runs import TOPK
from tests.harness.replay_stack import answered, answering, interrupt, prompt, reported, run


@pytest.fixture(autouse=True)
def no_reports_yet() -> None:
    reported.clear()
    answered.clear()


def counts(progress: Progress) -> tuple[int, int, int, float, bool]:
    return (
        *(progress.done, progress.failed, progress.scored, progress.score_sum),
        progress.running,
    )


def test_the_start_and_the_end_are_reported(url: str, tmp_path: Path) -> None:
    outcome = run(url, tmp_path / "run", "slow 1", "500", "mute", "slow 2")
    assert {(progress.prompts, progress.planned) for progress in reported} == {("mine", 4)}
    assert counts(reported[0]) == (0, 0, 0, 0.0, True)
    assert counts(reported[-1]) == (4, 1, 3, 2.0, False)
    assert reported[-1].accuracy == outcome.summary.accuracy


def test_progress_is_reported_at_most_once_a_second(url: str, tmp_path: Path) -> None:
    def wait_for_report(request: Request) -> None:
        if request.id == 1:
            eventually(lambda: [progress.done for progress in reported[-1:]] == [2])

    began_s = time.monotonic()
    run(url, tmp_path / "run", *(f"ok {n}" for n in range(20)), on_request=wait_for_report)
    took_s = time.monotonic() - began_s
    assert 3 <= len(reported) <= 2 + took_s / EVERY_S
    assert all(progress.running for progress in reported[:-1])
    done = [progress.done for progress in reported]
    assert done == sorted(done)


def test_an_interrupted_run_is_reported_as_ended_and_resumes_its_counts(
    url: str, tmp_path: Path
) -> None:
    texts = ("ok 1", "mute", "ok 2", "ok 3")
    with pytest.raises(KeyboardInterrupt):
        run(url, tmp_path / "run", *texts, on_request=interrupt)
    assert counts(reported[-1]) == (2, 0, 2, 1.0, False)
    reported.clear()
    run(url, tmp_path / "run", *texts)
    assert counts(reported[0])[0] >= 2
    assert counts(reported[-1]) == (4, 0, 4, 3.0, False)


def test_a_silent_orchestrator_is_not_waited_for(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "PROGRESS_TIMEOUT_S", 600)

    def answer_after_the_last(request: Request) -> None:
        if request.id == 2:
            eventually(lambda: len(reported) == 1)
            assert answered == []
            answering.set()

    answering.clear()
    try:
        texts = ("ok 1", "slow 1", "ok 2")
        outcome = run(url, tmp_path / "run", *texts, on_request=answer_after_the_last)
    finally:
        answering.set()
    assert [(r.error, r.score) for r in outcome.requests] == [(None, 1.0)] * 3


def test_a_refused_run_reports_nothing(url: str, tmp_path: Path) -> None:
    recorded_runs.record(tmp_path / "run")
    with pytest.raises(InputError, match="name was facts, it is mine now"):
        run(url, tmp_path / "run", "ok")
    assert reported == []


def test_a_set_of_any_name_can_be_reported() -> None:
    prompts = PromptSet("a\n\x1b[2Jb\udcff é" + "x" * 300, Path("mine"), "ab", (prompt("ok"),))
    assert Tally(prompts).progress.prompts == ("a??[2Jb? é" + "x" * 300)[:256]


scores = st.none() | st.sampled_from([0.0, 1.0]) | st.floats(0, 1)


@given(before=st.lists(scores, max_size=5), after=st.lists(scores, max_size=5))
def test_the_orchestrator_accepts_every_tally(
    before: Sequence[float | None], after: Sequence[float | None]
) -> None:
    requests = [
        recorded_runs.failed(n, TOPK, "ideal")
        if score is None
        else recorded_runs.request(n, TOPK, "ideal", score=score)
        for n, score in enumerate([*before, *after])
    ]
    prompts = PromptSet("mine", Path("mine"), "ab", tuple(prompt("ok") for _ in requests))
    tally = Tally(prompts, requests[: len(before)])
    for request in requests[len(before) :]:
        tally.add(request)
    sent = Progress.model_validate_json(tally.progress.model_dump_json())
    known = [score for score in (*before, *after) if score is not None]
    assert (sent.done, sent.planned) == (len(requests), len(requests))
    assert (sent.failed, sent.scored) == (len(requests) - len(known), len(known))
    assert sent.score_sum == pytest.approx(sum(known))
