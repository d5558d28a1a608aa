"""`wdmoe top` as a program in a terminal, with a real orchestrator and no base station."""

from __future__ import annotations

import fcntl
import json
import os
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Response

from tests.harness.command import Wdmoe
from tests.harness.serving import serve

pytestmark = pytest.mark.slow

PROGRAM = "from orchestrator.cli import main; main()"
STYLE = re.compile(rb"\x1b\[[0-9;]*m")
PATIENCE_S = 60
ENTERS, LEAVES, SHOWS_CURSOR = b"\x1b[?1049h", b"\x1b[?1049l", b"\x1b[?25h"


class Program:
    """`wdmoe top` on a pseudo-terminal; `shown` is its complete output."""

    def __init__(self, *arguments: str, program: str = PROGRAM) -> None:
        self.master, self.slave = os.openpty()
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        self.before = termios.tcgetattr(self.slave)
        self.shown = b""
        self._deaf = threading.Event()
        self.process = subprocess.Popen(
            [sys.executable, "-c", program, "top", *arguments],
            stdin=self.slave,
            stdout=self.slave,
            stderr=self.slave,
            env={**os.environ, "TERM": "xterm", "NO_COLOR": "1"},
            start_new_session=True,
        )
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def _listen(self) -> None:
        while not self._deaf.is_set():
            if select.select([self.master], [], [], 0.05)[0]:
                try:
                    self.shown += os.read(self.master, 65536)
                except OSError:
                    return

    def until(self, text: str) -> None:
        """Wait until the program has written `text`."""
        deadline = time.monotonic() + PATIENCE_S
        while text.encode() not in STYLE.sub(b"", self.shown):
            assert time.monotonic() < deadline, f"not shown within {PATIENCE_S} s: {text}"
            time.sleep(0.02)

    def press(self, key: str) -> None:
        os.write(self.master, key.encode())

    def ended(self) -> int:
        """Wait for the program's end and its complete output; return the exit code."""
        code = self.process.wait(PATIENCE_S)
        self.until(LEAVES.decode())
        return code

    def hang_up(self) -> None:
        """Close the terminal, unless it is closed already."""
        if self._deaf.is_set():
            return
        self._deaf.set()
        self._listener.join()
        os.close(self.slave)
        os.close(self.master)


@pytest.fixture
def top(orchestrator: str) -> Iterator[Program]:
    program = Program("--interval-s", "0.2")
    program.until("profile near-far")
    yield program
    program.process.kill()
    program.process.wait()
    program.hang_up()


def status(orchestrator: str) -> Any:
    return httpx.get(f"{orchestrator}/status", trust_env=False).json()


def test_keys_switch_and_q_ends(top: Program, orchestrator: str) -> None:
    top.until("the base station does not answer at http://127.0.0.1:9")
    top.press("p")
    top.until("profile outage")
    assert status(orchestrator)["profile"] == "outage"
    top.press("+")
    top.until("policy wlr θ=0.2")
    top.press("-")
    top.until("policy wlr θ=0.15")
    assert status(orchestrator)["policy"]["params"]["theta"] == pytest.approx(0.15)
    top.press("\x1b[Aq")
    assert top.ended() == 0
    assert termios.tcgetattr(top.slave) == top.before
    assert top.shown.count(ENTERS) == top.shown.count(LEAVES) == 1
    after = top.shown.rpartition(LEAVES)[2]
    assert SHOWS_CURSOR in top.shown
    assert b"Traceback" not in top.shown
    assert b"profile" not in after


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_restores_the_terminal(top: Program, number: signal.Signals) -> None:
    assert termios.tcgetattr(top.slave) != top.before
    top.process.send_signal(number)
    assert top.ended() == 0
    assert termios.tcgetattr(top.slave) == top.before
    assert top.shown.count(LEAVES) == 1
    assert b"Traceback" not in top.shown


def test_a_failed_reader_ends_the_program() -> None:
    program = Program(program=f"from orchestrator.top import live; live.view = None; {PROGRAM}")
    try:
        assert program.ended() == 1
        program.until("wdmoe: what was shown is old: thread reader failed: TypeError(")
        assert termios.tcgetattr(program.slave) == program.before
    finally:
        program.process.kill()
        program.process.wait()
        program.hang_up()


def test_the_program_ends_with_its_terminal(top: Program) -> None:
    top.hang_up()
    top.process.wait(PATIENCE_S)


def test_a_missing_terminal_is_an_error(wdmoe: Wdmoe) -> None:
    result = wdmoe("top")
    assert result.code == 2
    assert result.err == (
        "wdmoe: wdmoe top draws on a terminal, and there is none here; allowed elsewhere: --json\n"
    )


@pytest.mark.parametrize("interval", ["0", "nan", "inf", "61", "-1"])
def test_an_interval_out_of_range_is_refused(wdmoe: Wdmoe, interval: str) -> None:
    result = wdmoe("top", "--interval-s", interval)
    assert result.code == 2
    assert result.err.endswith("allowed: 0.2 to 60\n")


@pytest.mark.usefixtures("orchestrator")
def test_a_json_sample_has_what_is_known_and_null_for_the_rest(wdmoe: Wdmoe) -> None:
    result = wdmoe("top", "--json", "--interval-s", "0.2")
    sample = json.loads(result.out)
    assert result.code == 1
    address = "http://127.0.0.1:9"
    up = "; is the stack up? (wdmoe up)\n"
    assert result.err == f"wdmoe: the base station does not answer at {address}{up}"
    assert (sample["profile"], sample["policy"], sample["running"]) == ("near-far", "topk", None)
    assert [row["device"] for row in sample["devices"]] == list(range(8))
    assert all(row["asked_down_bps"] > 0 for row in sample["devices"])


def test_metrics_that_are_not_numbers_are_a_one_line_fault(
    wdmoe: Wdmoe, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = FastAPI()
    other.get("/metrics")(lambda: Response('wdmoe_tokens_total{kind="prompt"} NaN'))
    with serve(other) as url:
        monkeypatch.setenv("WDMOE_BS_URL", url)
        result = wdmoe("top", "--json", "--interval-s", "0.2")
    assert result.code == 1
    assert json.loads(result.out)["ended"] is None
    assert result.err.startswith(
        "wdmoe: the base station: unexpected answer at /metrics: wdmoe_tokens_total is nan; "
    )
    assert result.err.count("\n") == 1


def test_a_sample_tells_of_the_replay_too(wdmoe: Wdmoe, orchestrator: str) -> None:
    replay: dict[str, Any] = {
        "prompts": "facts",
        "planned": 20,
        "done": 8,
        "failed": 0,
        "running": True,
    }
    replay |= {"scored": 8, "score_sum": 6.0}
    httpx.post(f"{orchestrator}/replay", json=replay, trust_env=False).raise_for_status()
    sample = json.loads(wdmoe("top", "--json", "--interval-s", "0.2").out)
    assert sample["replay"] == replay | {"accuracy": 0.75}
