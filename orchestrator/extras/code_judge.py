"""Model-written programs, run against their benchmark's tests, each in its own container.

    wdmoe ──stdin: prompt + completion + tests──► docker run … python ──stdout──► wdmoe

The container has no network, no files of this host but the image, no capabilities and
an unprivileged user, and is stopped at its time limit. A program passes if it reaches its last
line, which prints a random word: exiting early is not a pass, whatever the exit code.
"""

from __future__ import annotations

import secrets
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

from orchestrator.errors import StackError, one_line
from orchestrator.prompts.prompt import Prompt
from orchestrator.results.schema import CodeOutcome, CodeResult, Request

IMAGE = "wdmoe-device:latest"
TIME_LIMIT_S = 10
# When a container that did not end by itself is removed; slow engines need time to create one.
GIVE_UP_S = 70
REMOVE_TIMEOUT_S = 60
AGAIN_AFTER_S = 0.5
MEMORY_BYTES = 256 << 20
MAX_OUTPUT_BYTES = 64 << 10
# Exit codes: `timeout` ended the program; the program was killed.
TIMED_OUT, KILLED = 124, 137
OF_DOCKER = "docker: "


def judge(
    requests: Sequence[Request],
    prompts: Sequence[Prompt],
    on_done: Callable[[CodeResult], None] = lambda result: None,
) -> dict[int, CodeResult]:
    """Run the tests of each answered request that has some, one after another.

    Args:
        requests: as recorded; `id` is the prompt's index in `prompts`.
        prompts: all prompts of the set.
        on_done: receives each result.

    Returns:
        The results by request id.

    Raises:
        StackError: containers cannot be run.
    """
    programs = [
        (request, program)
        for request in requests
        if request.error is None
        and (program := prompts[request.id].program(request.completion)) is not None
    ]
    if programs:
        _check_engine()
    results = {}
    for request, program in programs:
        outcome, detail = run(program)
        if detail.startswith(OF_DOCKER):  # or the program printed that itself
            _check_engine()
            outcome, detail = run(program)  # docker works again
        result = CodeResult(
            id=request.id, prompt_id=request.prompt_id, outcome=outcome, detail=detail
        )
        results[request.id] = result
        on_done(result)
    return results


def _check_engine() -> None:
    """Raise StackError if not even an empty program can be run."""
    outcome, detail = run("")
    if outcome != "passed":
        raise StackError(f"running programs: a container of {IMAGE} cannot be used: {detail}")


def run(source: str) -> tuple[CodeOutcome, str]:
    """Run a Python program in a container; return the outcome and the last line of its output.

    Raises:
        StackError: docker is not installed, or does not end a container.
    """
    word = secrets.token_hex(16)
    name = f"wdmoe-code-{word}"
    limits = [
        *("--network", "none", "--read-only", "--tmpfs", "/tmp:size=16m"),
        *("--memory", str(MEMORY_BYTES), "--memory-swap", str(MEMORY_BYTES)),
        *("--ulimit", f"data={MEMORY_BYTES}", "--pids-limit", "64", "--cpus", "1"),
        *("--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--user", "65534:65534"),
        *("--log-driver", "none", "--pull", "never", "--workdir", "/tmp"),
        *("--env", "OMP_NUM_THREADS=1"),  # numpy's threads, one per core, would not fit
    ]
    python = ["timeout", "--kill-after", "1", str(TIME_LIMIT_S), "python", "-I", "-"]
    command = ["docker", "run", "--rm", "-i", "--name", name, *limits, IMAGE, *python]
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C must not reach docker: it would leave a container
        )
    except FileNotFoundError:
        raise StackError("docker is not installed: run ./setup.sh") from None
    given_up = threading.Event()

    def give_up() -> None:
        given_up.set()
        _remove(name, process)

    late = threading.Timer(GIVE_UP_S, give_up)
    late.start()
    try:
        output = _talk(process, f"{source}\nprint('\\n' + {word!r})\n")
        if len(output) > MAX_OUTPUT_BYTES:
            return "too much output", f"more than {MAX_OUTPUT_BYTES} bytes"
        code = process.wait()
    finally:
        late.cancel()
        late.join()  # it may be running
        if process.poll() is None:
            assert process.stdout is not None
            process.stdout.close()  # otherwise docker would wait for a reader before it ends
            _remove(name, process)
    if given_up.is_set():  # the time limit inside the container is long past
        raise StackError(f"running programs: docker did not end a container within {GIVE_UP_S} s")
    return _outcome(code, output.decode(errors="replace").strip().splitlines() or [""], word)


def _outcome(code: int, lines: list[str], word: str) -> tuple[CodeOutcome, str]:
    if code == 0 and lines[-1] == word:
        return "passed", ""
    if code == TIMED_OUT:
        return "timeout", f"no end after {TIME_LIMIT_S} s"
    if code == KILLED:
        return "failed", "killed: out of memory, or it would not end"
    of_docker = [line for line in lines if line.startswith(OF_DOCKER)]
    return "failed", one_line([*of_docker, lines[-1]][0]) or f"exit code {code}"


def _talk(process: subprocess.Popen[bytes], source: str) -> bytes:
    """Send the program; return its output, or one byte more than is allowed."""
    assert process.stdin is not None
    assert process.stdout is not None
    with suppress(BrokenPipeError):  # docker has ended; its output has the reason
        process.stdin.write(source.encode(errors="replace"))
        process.stdin.close()
    return process.stdout.read(MAX_OUTPUT_BYTES + 1)


def _remove(name: str, process: subprocess.Popen[bytes]) -> None:
    """Remove a container, which also ends the docker client that waits for it.

    The client is not killed first: if the engine is still creating the container, it would remain.
    """
    deadline_s = time.monotonic() + REMOVE_TIMEOUT_S
    command = ["docker", "rm", "--force", name]
    while (left_s := deadline_s - time.monotonic()) > 0:
        with suppress(subprocess.TimeoutExpired):
            subprocess.run(command, capture_output=True, check=False, timeout=left_s)
            process.wait(AGAIN_AFTER_S)
            return
    process.kill()
    process.wait()
