"""The loop: reads beside, draws what is new, and acts on keys until `q`."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable

from rich.console import Console
from rich.live import Live

from orchestrator.top.history import History
from orchestrator.top.keyboard import Keyboard
from orchestrator.top.screen import draw
from orchestrator.top.source import Source
from orchestrator.top.switching import Switches, Worker
from orchestrator.top.view import View, view

_POLL_S = 0.1
SPOILS = "a replay runs, and its numbers would be of two channels: the same key again does it"


class Reader:
    """Reads the stack once an interval, in a thread of its own; `newest` is what came of it."""

    def __init__(self, source: Source, interval_s: float) -> None:
        self.newest: View | None = None
        self._source = source
        self._interval_s = interval_s
        threading.Thread(target=self._run, name="reader", daemon=True).start()

    def _run(self) -> None:
        history, due_s = History(), time.monotonic()
        while True:
            reading = self._source.read()
            history.add(reading)
            self.newest = view(reading, history)
            due_s = max(due_s + self._interval_s, time.monotonic())
            time.sleep(max(0.0, due_s - time.monotonic()))


class Keys:
    """What each key does; while a replay runs, only if it is pressed twice."""

    def __init__(self, switches: Switches, worker: Worker) -> None:
        self._worker = worker
        self._asked: str | None = None
        self._switches: dict[str, Callable[[], str]] = {
            "p": lambda: switches.profile(1),
            "P": lambda: switches.profile(-1),
            "o": lambda: switches.policy(1),
            "O": lambda: switches.policy(-1),
            "+": lambda: switches.theta(1),
            "-": lambda: switches.theta(-1),
        }

    def press(self, key: str, replaying: bool) -> None:
        """Act on a key that switches something; the others do nothing."""
        switch = self._switches.get(key)
        if switch is None:
            return
        if replaying and self._asked != key:
            self._asked, self._worker.message = key, SPOILS
            return
        self._asked = None
        self._worker.do(switch)


def run(
    console: Console, keyboard: Keyboard, source: Source, switches: Switches, interval_s: float
) -> None:
    """Until `q`, a signal, or the end of the terminal; then all is as it was."""
    reader, worker = Reader(source, interval_s), Worker()
    keys = Keys(switches, worker)
    stop = _stop_when_signalled()
    live = Live(console=console, screen=True, auto_refresh=False, redirect_stdout=False)
    with keyboard, live:
        drawn: object = None
        while not stop.is_set():
            newest, size = reader.newest, console.size
            if (state := (id(newest), worker.message, size)) != drawn:
                drawn = state
                screen = draw(newest, size.width, size.height, interval_s, worker.message)
                live.update(screen, refresh=True)
            typed = keyboard.keys(_POLL_S)
            if typed is None or "q" in typed:
                return
            replaying = newest is not None and newest.replay is not None and newest.replay.running
            for key in typed:
                keys.press(key, replaying)


def _stop_when_signalled() -> threading.Event:
    """Set by Ctrl-C, SIGTERM and SIGHUP, which thus interrupt nothing half done."""
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: stop.set())
    return stop
