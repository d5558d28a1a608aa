"""The loop: reads beside, draws what is new, and acts on keys until `q`."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable

from rich.console import Console
from rich.live import Live

from orchestrator.errors import StackError
from orchestrator.top.controls import Switches, Worker
from orchestrator.top.history import History
from orchestrator.top.keyboard import Keyboard
from orchestrator.top.poller import Source
from orchestrator.top.screen import draw
from orchestrator.top.view import View, view

_POLL_S = 0.1
SPOILS = "a replay runs, and its numbers would be of two channels: the same key again does it"
MAY_SPOIL = "nobody says whether a replay runs, which it would spoil: the same key again does it"


class Reader:
    """Reads the stack once an interval, in a thread of its own; `newest` is what came of it."""

    def __init__(self, source: Source, interval_s: float) -> None:
        self.newest: View | None = None
        self._source = source
        self.interval_s = interval_s
        threading.Thread(target=self._run, name="reader", daemon=True).start()

    def _run(self) -> None:
        history, due_s = History(), time.monotonic()
        while True:
            reading = self._source.read()
            history.add(reading)
            self.newest = view(reading, history)
            due_s = max(due_s + self.interval_s, time.monotonic())
            time.sleep(max(0.0, due_s - time.monotonic()))


class Keys:
    """What each key does; while a replay runs, or may, only if it is pressed twice.

    Whether one runs is asked when the key's turn has come, by the worker, whose `source` is its
    own: what is on the screen may be old.
    """

    def __init__(self, switches: Switches, worker: Worker, source: Source) -> None:
        self._worker = worker
        self._source = source
        self._asked: str | None = None
        self._switches: dict[str, Callable[[], str]] = {
            "p": lambda: switches.profile(1),
            "P": lambda: switches.profile(-1),
            "o": lambda: switches.policy(1),
            "O": lambda: switches.policy(-1),
            "+": lambda: switches.theta(1),
            "-": lambda: switches.theta(-1),
        }

    def press(self, key: str) -> None:
        """Act on a key that switches something; the others do nothing."""
        switch = self._switches.get(key)
        if switch is not None:
            self._worker.do(lambda: self._do(key, switch))

    def _do(self, key: str, switch: Callable[[], str]) -> str:
        """In the worker: the switch, or why not yet."""
        again, self._asked = self._asked == key, None
        if not again:
            status = self._source.status()
            if status is None or (status.replay is not None and status.replay.running):
                self._asked = key
                return MAY_SPOIL if status is None else SPOILS
        return switch()


def run(console: Console, keyboard: Keyboard, reader: Reader, keys: Keys, worker: Worker) -> None:
    """Until `q`, a signal, or the end of the terminal; then all is as it was."""
    stop = _stop_when_signalled()
    failed = _stop_when_a_thread_fails(stop)
    live = Live(console=console, screen=True, auto_refresh=False, redirect_stdout=False)
    with keyboard, live:
        drawn: object = None
        while not stop.is_set():
            newest, size = reader.newest, console.size
            if (state := (id(newest), worker.message, size)) != drawn:
                drawn = state
                screen = draw(newest, size.width, size.height, reader.interval_s, worker.message)
                live.update(screen, refresh=True)
            typed = keyboard.keys(_POLL_S)
            if typed is None or "q" in typed:
                break
            for key in typed:
                keys.press(key)
    if failed:
        raise StackError(f"what was shown is old: {failed[0]}")


def _stop_when_a_thread_fails(stop: threading.Event) -> list[str]:
    """Set `stop` then; the list that is returned has the thread and its error."""
    failed: list[str] = []

    def end(ended: threading.ExceptHookArgs) -> None:
        thread = ended.thread.name if ended.thread is not None else "unknown"
        failed.append(f"thread {thread} failed: {ended.exc_value!r}")
        stop.set()

    threading.excepthook = end
    return failed


def _stop_when_signalled() -> threading.Event:
    """Set by Ctrl-C, SIGTERM and SIGHUP, which thus interrupt nothing half done."""
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: stop.set())
    return stop
