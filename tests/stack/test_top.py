"""`wdmoe top` in a real terminal, while a replay runs on the stack."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.radio import profiles
from tests.stack.conftest import ENVIRONMENT, EXPERTS, Stack, until

WDMOE = str(Path(sys.executable).parent / "wdmoe")


class Terminal:
    """A shell in tmux, with a separate server."""

    def __init__(self, columns: int, lines: int) -> None:
        self._server = f"wdmoe-test-{os.getpid()}"
        shell = "exec env PS1='ready> ' TERM=screen sh"
        size = ["-x", str(columns), "-y", str(lines)]
        self.tmux("-f", "/dev/null", "new-session", "-d", *size, shell)
        self.shows("^ready>")

    def tmux(self, *arguments: str) -> str:
        """Run a tmux command; return its output."""
        command = ["tmux", "-L", self._server, *arguments]
        done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def type(self, text: str) -> None:
        """Type a command line and Enter."""
        self.tmux("send-keys", "-l", text)
        self.tmux("send-keys", "Enter")

    def press(self, key: str) -> None:
        """Press a key."""
        self.tmux("send-keys", "-l", key)

    def lines(self) -> list[str]:
        """Return the displayed lines."""
        return self.tmux("capture-pane", "-p").splitlines()

    def shows(self, pattern: str) -> None:
        """Wait until the display matches a pattern."""
        until(lambda: re.search(pattern, "\n".join(self.lines()), re.MULTILINE), pattern)


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    made = Terminal(80, 24)
    yield made
    made.tmux("kill-server")


@pytest.fixture
def replay(stack: Stack, tmp_path: Path) -> Iterator[None]:
    """Run a replay for the duration of the test."""
    stack.use("near-far")
    command = [WDMOE, "replay", "facts", "--fading", "one", "--out", str(tmp_path / "run")]
    with subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.DEVNULL) as process:
        until(lambda: stack.status()["replay"] is not None, "the replay reports its progress")
        yield
        assert process.poll() is None, "the replay ended before the test"
        process.send_signal(signal.SIGTERM)  # a test run in the background ignores SIGINT
    stack.use("near-far")
    stack.wdmoe("policy", "use", "topk")


def devices(lines: list[str]) -> list[str]:
    return [line for line in lines if re.match(r" +\d admitted ", line)]


@pytest.mark.usefixtures("replay")
def test_top_shows_a_replay_and_switches_the_channel(stack: Stack, terminal: Terminal) -> None:
    terminal.type("stty -g | cksum")
    until(lambda: mode(terminal.lines()), "the shell answers")
    before = terminal.lines()
    terminal.type(shlex.join([WDMOE, "top"]))

    terminal.shows(r"^replay   facts \d+ of 300.* % right$")
    terminal.shows(r"last minute \d+ ended, p50 [\d.]+, p95 [\d.]+ ms$")
    terminal.shows(r"^cmpl-\S+ running ")
    first = terminal.lines()
    assert first[0].startswith("profile near-far   policy topk   model bundled")
    assert len(first) == 24
    assert "q quit" in first[-1]
    assert len(devices(first)) == EXPERTS
    until(
        lambda: all_differ(devices(first), devices(terminal.lines())),
        "every device's row changes",
    )
    assert not re.search(r"bit/s +got", "\n".join(terminal.lines()))
    terminal.tmux("resize-window", "-x", "130")
    terminal.shows(r"set bit/s +got bit/s ")

    bundled = [profile.name for profile in profiles.bundled()]
    after = bundled[(bundled.index("near-far") + 1) % len(bundled)]
    terminal.press("p")
    terminal.shows("^a replay runs")
    assert stack.status()["profile"] == "near-far"
    terminal.press("p")
    terminal.shows(f"^profile {after}   policy topk")
    assert stack.status()["profile"] == after
    terminal.press("++")
    terminal.shows(f"^profile {after}   policy wlr θ=0.2")
    terminal.press("++")
    terminal.shows(f"^profile {after}   policy wlr θ=0.25")
    assert stack.status()["policy"]["params"]["theta"] == pytest.approx(0.25)

    terminal.press("q")
    terminal.shows("^ready> .*top$")
    terminal.type("stty -g | cksum")
    until(lambda: len(mode(terminal.lines())) == 2, "the shell answers again")
    restored = terminal.lines()
    assert restored[:2] == before[:2]
    assert len(set(mode(restored))) == 1


def all_differ(before: list[str], after: list[str]) -> bool:
    """Whether both have the same number of lines and every line differs."""
    return len(before) == len(after) and all(a != b for a, b in zip(before, after, strict=True))


def mode(lines: list[str]) -> list[str]:
    """Return every printed checksum of the terminal's settings."""
    matches = (re.fullmatch(r"(?:ready> )?(\d+ \d+)", line) for line in lines)
    return [match[1] for match in matches if match]


def test_top_prints_one_sample_as_json(stack: Stack) -> None:
    sample = stack.wdmoe("top")
    assert sample["faults"] == []
    assert [row["device"] for row in sample["devices"]] == list(range(EXPERTS))
    assert {row["state"] for row in sample["devices"]} == {"admitted"}
