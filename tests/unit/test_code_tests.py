"""What of HumanEval's judging needs no container; tests/stack has the rest."""

import pytest

from orchestrator.errors import StackError
from orchestrator.replay import code_tests
from orchestrator.replay.prompt import CodePrompt, Prompt
from orchestrator.replay.records import Request

CODE = CodePrompt(
    id="Own/0",
    prompt="def one():\n",
    answer="    return 1",
    max_tokens=5,
    stop=[],
    test="def check(candidate):\n    assert candidate() == 1",
    entry_point="one",
)
TEXT = Prompt(id="text", prompt="1 + 1", answer="2", max_tokens=5, stop=[])


def request(number: int, error: str | None = None) -> Request:
    return Request(
        id=number,
        prompt_id="x",
        completion="    return 1",
        answer="",
        expected="",
        score=None,
        intended_start_s=0.0,
        actual_start_s=0.0,
        time_to_first_token_s=None,
        end_to_end_s=0.0,
        http_s=None,
        timings=None,
        error=error,
    )


def test_a_program_is_the_prompt_its_completion_and_the_tests() -> None:
    program = code_tests.program(CODE, "    return 1")
    assert program == (
        "def one():\n    return 1\ndef check(candidate):\n    assert candidate() == 1\ncheck(one)\n"
    )
    exec(program, {})


def test_only_answered_programs_are_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")  # nothing is
    assert code_tests.judge([request(0), request(1, error="gone")], [TEXT, CODE]) == {}


def test_without_docker_there_is_no_result(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(StackError, match="docker is not installed"):
        code_tests.judge([request(0)], [CODE])
