"""The parts of HumanEval's judge that need no container; tests/stack covers the rest."""

import os
import time
from pathlib import Path

import pytest

from orchestrator.errors import StackError
from orchestrator.extras import code_judge
from orchestrator.prompts.prompt import CodePrompt, Prompt
from tests.harness.recorded_runs import program

RIGHT = "    return 1"
# An engine that creates containers at its own pace, even after the client has gone. A container
# is a file; a program runs without one.
DOCKER = """\
#!/bin/bash
cd "$ENGINE"
[ "$1" = rm ] && { rm --force "containers/$3"; exit; }
while [ "$1" != --name ]; do shift; done
name=$2
if [ -e slow ]; then
    (sleep 1; touch "containers/$name") & wait
    while [ -e "containers/$name" ]; do sleep 0.1; done
    exit 137
fi
echo >> calls
if [ -e faults ] && [ $(wc --lines < calls) = $(cat faults) ]; then
    echo "docker: Error response from daemon: no more memory"
    exit 125
fi
while [ "$1" != python ]; do shift; done
exec "$@"
"""
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


def test_a_program_is_the_prompt_its_completion_and_the_tests() -> None:
    source = CODE.program(RIGHT)
    assert source == (
        "def one():\n    return 1\ndef check(candidate):\n    assert candidate() == 1\ncheck(one)\n"
    )
    exec(source, {})
    assert TEXT.program("2") is None


def test_only_answered_programs_are_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")  # no command is found
    assert (
        code_judge.judge([program(0, RIGHT), program(1, RIGHT, error="gone")], [TEXT, CODE]) == {}
    )


def test_a_missing_docker_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(StackError, match="docker is not installed"):
        code_judge.judge([program(0, RIGHT)], [CODE])


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "containers").mkdir()
    (tmp_path / "docker").write_text(DOCKER)
    (tmp_path / "docker").chmod(0o755)
    monkeypatch.setenv("ENGINE", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    return tmp_path


def test_an_engine_that_runs_nothing_is_an_error(engine: Path) -> None:
    (engine / "faults").write_text("1")
    with pytest.raises(StackError, match="cannot be used: docker: Error response from daemon"):
        code_judge.judge([program(0, RIGHT)], [CODE])


@pytest.mark.parametrize("fault", [2, 3])
def test_a_transient_fault_of_docker_is_retried(engine: Path, fault: int) -> None:
    (engine / "faults").write_text(str(fault))
    results = code_judge.judge([program(n, RIGHT) for n in range(2)], [CODE, CODE])
    assert [result.outcome for result in results.values()] == ["passed", "passed"]
    # An empty program, both programs, and after the fault an empty program and a repetition.
    assert len((engine / "calls").read_text()) == 5


def test_a_container_that_is_created_after_docker_timed_out_is_removed(
    engine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (engine / "slow").touch()
    monkeypatch.setattr(code_judge, "GIVE_UP_S", 0.2)
    with pytest.raises(StackError, match=r"docker did not end a container within 0\.2 s"):
        code_judge.run("")
    time.sleep(1)  # any pending container has been created by now
    assert list((engine / "containers").iterdir()) == []
