"""The recorder that replays and sweeps share, without a stack."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from orchestrator.prompts.prompt_sets import PromptSet
from orchestrator.replay.recorder import Recorder
from orchestrator.results.run_folder import RunFolder, read_requests, read_summary
from orchestrator.results.schema import CodeResult, Request
from tests.harness.recorded_runs import TOPK, program, request, run
from tests.harness.replay_stack import prompt

PROMPTS = PromptSet("facts", Path("x"), "0", (prompt("a"), prompt("b"), prompt("c")))
RUN = run("near-far", TOPK, 3)


def test_a_request_is_recorded_counted_and_reported(tmp_path: Path) -> None:
    first, second = (request(n, TOPK, "near-far") for n in range(2))
    with closing(RunFolder(tmp_path, RUN)) as folder:
        folder.add(first)
    reported: list[Request] = []
    folder = RunFolder(tmp_path, RUN, resume=True)
    with closing(Recorder(folder, PROMPTS, reported.append)) as recorder:
        assert (recorder.requests, recorder.tally.progress.done) == ([first], 1)
        recorder.add(second)
        assert (recorder.requests, recorder.tally.progress.done) == ([first, second], 2)
    assert reported == [second]
    assert read_requests(tmp_path) == [first, second]


def test_the_outcome_of_a_program_is_its_requests_score(tmp_path: Path) -> None:
    with closing(Recorder(RunFolder(tmp_path, RUN), PROMPTS)) as recorder:
        for number in range(2):
            recorder.add(program(number, "pass"))
        result = CodeResult(id=1, prompt_id="Own/1", outcome="passed", detail="")
        recorder.add_code(result)
        assert [item.score for item in recorder.requests] == [None, 1.0]
        assert [item.id for item in recorder.untested()] == [0]
        assert read_requests(tmp_path) == recorder.requests


@pytest.mark.parametrize("took_turns", [False, True])
def test_only_a_run_without_turns_has_rates(tmp_path: Path, took_turns: bool) -> None:
    with closing(Recorder(RunFolder(tmp_path, RUN), PROMPTS)) as recorder:
        for number in range(3):
            recorder.add(request(number, TOPK, "near-far"))
        summary = recorder.finish(RUN.stack, took_turns=took_turns)
    assert (summary.n, summary.requests_per_s is None) == (3, took_turns)
    assert read_summary(tmp_path) == summary
