"""Progress of long work on stderr: a bar on a terminal, otherwise one line per minute."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Thread

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

LINE_EVERY_S = 60.0


@contextmanager
def progress_display(speed_over_s: float = 60) -> Iterator[Progress]:
    """Show the tasks that are added to the progress, until the block ends.

    The remaining time is estimated from the progress in the latest `speed_over_s`.
    """
    console = Console(stderr=True)
    progress = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        speed_estimate_period=speed_over_s,
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    if console.is_terminal:
        with progress:
            yield progress
        return
    ended = Event()
    writer = Thread(target=_write_lines, args=(progress, ended), name="progress", daemon=True)
    writer.start()
    try:
        yield progress
    finally:
        ended.set()
        writer.join()


def _write_lines(progress: Progress, ended: Event) -> None:
    began_s = time.monotonic()
    while not ended.wait(LINE_EVERY_S):
        minutes = (time.monotonic() - began_s) / 60
        try:
            for task in progress.tasks:
                if not task.finished:
                    # one write, so that output of others cannot split the line
                    sys.stderr.write(f"{_line(task)}; {minutes:.0f} min\n")
                    sys.stderr.flush()
        except OSError:  # stderr is closed, but the work continues
            return


def _line(task: Task) -> str:
    if task.total is None:
        return task.description
    return f"{task.description}: {task.completed:g} of {task.total:g}"
