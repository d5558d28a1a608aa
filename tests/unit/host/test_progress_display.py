"""Progress of long work: lines if stderr is a file or a pipe, a bar on a terminal."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import time

import pytest

from orchestrator.host import progress_display

WORK = """
import time
from orchestrator.host import progress_display
progress_display.LINE_EVERY_S = 0.02
with progress_display.progress_display() as progress:
    task = progress.add_task("carving layers", total=30, completed=12)
    time.sleep(0.5)
    progress.update(task, completed=30)
"""


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress_display, "LINE_EVERY_S", 0.01)


def written(capfd: pytest.CaptureFixture[str], line: str) -> str:
    """Wait for the line on stderr, and return everything written so far."""
    found = ""
    while line not in found:
        found += capfd.readouterr().err
        time.sleep(0.01)
    return found


def test_a_line_has_progress_and_elapsed_time(capfd: pytest.CaptureFixture[str]) -> None:
    with progress_display.progress_display() as progress:
        task = progress.add_task("carving layers", total=30, completed=12)
        first = written(capfd, "\n")
        progress.advance(task)
        written(capfd, "carving layers: 13 of 30; 0 min\n")
    assert first.startswith("carving layers: 12 of 30; 0 min\n")


def test_lines_continue_without_progress_and_omit_finished_tasks(
    capfd: pytest.CaptureFixture[str],
) -> None:
    with progress_display.progress_display() as progress:
        done = progress.add_task("sampling text", total=5)
        progress.add_task("building images", total=None)
        progress.update(done, completed=5)
        written(capfd, "building images; 0 min\n" * 3)
        capfd.readouterr()
        later = written(capfd, "building images; 0 min\n")
    assert "sampling" not in later


def test_nothing_is_written_after_the_work_has_ended(capfd: pytest.CaptureFixture[str]) -> None:
    with progress_display.progress_display() as progress:
        progress.add_task("probing", total=3)
        written(capfd, "probing: 0 of 3")
    capfd.readouterr()
    time.sleep(0.05)
    assert capfd.readouterr().err == ""


def test_a_terminal_has_a_bar_and_no_lines() -> None:
    master, terminal = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    with subprocess.Popen(
        [sys.executable, "-c", WORK], stderr=terminal, env=environment, text=True
    ) as work:
        os.close(terminal)
        shown = b""
        try:
            while part := os.read(master, 4096):
                shown += part
        except OSError:  # the other end is closed
            pass
    assert work.returncode == 0
    assert "━" in shown.decode()
    assert "12/30" in shown.decode()
    assert " min" not in shown.decode()


def test_a_closed_stderr_does_not_end_the_work() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    result = subprocess.run([sys.executable, "-c", WORK], stderr=writing, check=False)
    os.close(writing)
    assert result.returncode == 0
