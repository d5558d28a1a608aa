"""The real Docker Engine runs programs in containers."""

import json
from pathlib import Path

import pytest

from orchestrator.errors import StackError
from orchestrator.extras import code_judge
from orchestrator.prompts import prompt_sets
from orchestrator.results.schema import CodeResult
from tests.harness.recorded_runs import program
from tests.stack.conftest import docker

TASK = {
    "task_id": "Own/0",
    "prompt": 'def double(x):\n    """Twice x."""\n',
    "entry_point": "double",
    "canonical_solution": "    return 2 * x\n",
    "test": "def check(candidate):\n    assert candidate(4) == 8\n    assert candidate(0) == 0\n",
}


@pytest.fixture(autouse=True)
def _all_devices_admitted() -> None:
    """Override the fixture of the stack, which these tests do not need."""


@pytest.fixture(scope="module", autouse=True)
def _image() -> None:
    docker("compose", "build", "--quiet", "device-0")


def test_right_code_passes_and_wrong_code_does_not(tmp_path: Path) -> None:
    file = tmp_path / "own.jsonl"
    tasks = [TASK | {"task_id": f"Own/{number}"} for number in range(6)]
    file.write_text("".join(json.dumps(task) + "\n" for task in tasks))
    prompts = prompt_sets.load(f"humaneval:{file}").prompts
    runs = [
        program(0, "    return 2 * x"),
        program(1, "    return x + 4"),
        program(2, "    return (2 * x"),
        program(3, "    import sys\n    sys.exit(0)"),
        program(4, "", error="the base station was gone"),
        program(5, "    return x << 1\n\nprint('a word of its own')"),
    ]
    reported: list[CodeResult] = []
    results = code_judge.judge(runs, prompts, reported.append)
    assert list(results.values()) == reported
    assert {number: result.outcome for number, result in results.items()} == {
        0: "passed",
        1: "failed",
        2: "failed",
        3: "failed",
        5: "passed",
    }
    assert (results[0].score, results[1].score) == (1.0, 0.0)
    assert results[1].detail == "AssertionError"
    assert results[2].detail.startswith("SyntaxError")


def test_an_endless_loop_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(code_judge, "TIME_LIMIT_S", 2)
    assert code_judge.run("while True: pass") == ("timeout", "no end after 2 s")
    stubborn = "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nwhile True: pass"
    # The outcome depends on whether SIGTERM arrives before the program ignores it.
    assert code_judge.run(stubborn)[0] in ("failed", "timeout")


def test_waiting_for_an_engine_that_does_not_end_a_container_times_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(code_judge, "GIVE_UP_S", 4)
    with pytest.raises(StackError, match="did not end a container"):
        code_judge.run("import time\ntime.sleep(9)")
    assert docker("ps", "-aq", "--filter", "name=wdmoe-code-") == ""


def test_endless_output_is_stopped() -> None:
    assert code_judge.run("while True: print('x' * 1000)")[0] == "too much output"


@pytest.mark.parametrize(
    ("source", "detail"),
    [
        ("import socket\nsocket.create_connection(('127.0.0.1', 8000), 1)", "Connection refused"),
        ("import socket\nsocket.create_connection(('1.1.1.1', 80), 1)", "Network is unreachable"),
        ("data = bytearray(1 << 30)", "MemoryError"),
        ("open('/app/x', 'w')", "Read-only file system"),
        ("open('/tmp/x', 'wb').write(bytes(32 << 20))", "No space left on device"),
        ("import os\nos.setuid(0)", "Operation not permitted"),
    ],
)
def test_forbidden_operations_of_a_program_fail(source: str, detail: str) -> None:
    outcome, output = code_judge.run(source)
    assert outcome == "failed"
    assert detail in output


def test_the_number_of_processes_and_their_total_memory_are_limited() -> None:
    assert code_judge.run("import os\nfor _ in range(100): os.fork() or os._exit(0)")[0] != "passed"
    hungry = "import os\nfor _ in range(4): os.fork()\ndata = b'x' * (128 << 20)\nos.wait()"
    assert code_judge.run(hungry)[0] == "failed"


def test_no_container_is_left_behind() -> None:
    assert docker("ps", "-aq", "--filter", "name=wdmoe-code-") == ""


def test_a_missing_image_is_reported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "own.jsonl"
    file.write_text(json.dumps(TASK) + "\n")
    prompts = prompt_sets.load(f"humaneval:{file}").prompts
    monkeypatch.setattr(code_judge, "IMAGE", "wdmoe-none:latest")
    with pytest.raises(StackError, match=r"wdmoe-none:latest cannot be used: docker: .*such image"):
        code_judge.judge([program(0, "    return 2 * x")], prompts)
