"""Answers that are programs: their results are recorded, merged, and not computed twice."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

import pytest

from orchestrator.client.client import Client
from orchestrator.errors import InputError
from orchestrator.prompts.prompt import CodePrompt, Prompt
from orchestrator.prompts.prompt_sets import PromptSet
from orchestrator.replay.run import Outcome, replay
from orchestrator.results import run_folder
from orchestrator.results.schema import CodeOutcome, CodeResult, Request
from tests.harness.command import Wdmoe
from tests.harness.replay_stack import prompt, reported

PROGRAM = {"max_tokens": 5, "stop": ["\n"], "answer": "x", "test": "t", "entry_point": "f"}
PROMPTS = tuple(
    CodePrompt.model_validate({**PROGRAM, "id": f"code-{n}", "prompt": f"{word} {n}"})
    for n, word in enumerate(["ok", "mute", "500", "ok"])
)


def run(url: str, out: Path, judge: Callable[..., object] | None) -> Outcome:
    prompts = PromptSet("programs", Path("programs"), "ab", PROMPTS)
    with closing(Client(url, url)) as client:
        return replay(prompts, client, out, judge=judge, resume=out.exists())


class Judge:
    """A judge that passes every program with a text, and is interrupted before the `last` one."""

    def __init__(self, last: int = 99) -> None:
        self.seen: list[int] = []
        self._last = last

    def __call__(
        self,
        requests: Sequence[Request],
        prompts: Sequence[Prompt],
        on_done: Callable[[CodeResult], None],
    ) -> None:
        for request in sorted(requests, key=lambda request: request.id):
            if request.error is not None:
                continue
            if request.id == self._last:
                raise KeyboardInterrupt
            self.seen.append(request.id)
            assert prompts[request.id].id == request.prompt_id
            outcome: CodeOutcome = "passed" if request.completion else "failed"
            on_done(
                CodeResult(id=request.id, prompt_id=request.prompt_id, outcome=outcome, detail="")
            )


def test_no_program_is_run_by_default(url: str, tmp_path: Path) -> None:
    summary = run(url, tmp_path / "run", None).summary
    assert (summary.scored, summary.accuracy) == (0, None)
    assert "3 of 3 answers have no score" in summary.warnings
    assert not (tmp_path / "run" / "code.jsonl").exists()


def test_interrupted_tests_resume_where_they_stopped(url: str, tmp_path: Path) -> None:
    out = tmp_path / "run"
    first, second = Judge(last=3), Judge()
    with pytest.raises(KeyboardInterrupt):
        run(url, out, first)
    assert first.seen == [0, 1]
    assert (reported[-1].done, reported[-1].scored, reported[-1].running) == (4, 2, False)
    outcome = run(url, out, second)
    assert second.seen == [3]
    assert {request.id: request.score for request in outcome.requests} == {
        0: 1.0,
        1: 0.0,
        2: None,
        3: 1.0,
    }
    assert outcome.summary.scored == 3
    assert outcome.summary.accuracy == pytest.approx(2 / 3)
    assert (reported[-1].scored, reported[-1].accuracy) == (3, outcome.summary.accuracy)
    assert run_folder.read_requests(out) == outcome.requests
    (out / "code.jsonl").write_text("{}\n")
    with pytest.raises(InputError, match=r"code\.jsonl, line 1: not a program's result of this"):
        run_folder.read_requests(out)


def test_a_set_without_programs_cannot_be_tested(wdmoe: Wdmoe, tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_text(prompt("ok").model_dump_json() + "\n")
    refused = wdmoe("replay", f"jsonl:{path}", "--run-code")
    assert refused.code == 2
    assert "asks for no programs; allowed: humaneval:PATH" in refused.err
