"""The main loop: draw each new reading and act on keys until `q`; a thread reads."""

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
from orchestrator.top.poller import Poller
from orchestrator.top.screen import draw
from orchestrator.top.view import View, view

_POLL_S = 0.1
SPOILS = "a replay runs, and would mix two channels: press the same key again to switch"
MAY_SPOIL = "unknown whether a replay runs: press the same key again to switch"


class Reader:
    """Reads the stack once per interval, in its own thread; `newest` is the newest view."""

    def __init__(self, poller: Poller, interval_s: float) -> None:
        self.newest: View | None = None
        self._poller = poller
        self.interval_s = interval_s

    def start(self) -> None:
        """Start reading."""
        threading.Thread(target=self._run, name="reader", daemon=True).start()

    def _run(self) -> None:
        history, due_s = History(), time.monotonic()
        while True:
            reading = self._poller.read()
            history.add(reading)
            self.newest = view(reading, history)
            due_s = max(due_s + self.interval_s, time.monotonic())
            time.sleep(max(0.0, due_s - time.monotonic()))


class Keys:
    """The action of each key; while a replay runs, or may run, the key must be pressed twice.

    The worker checks for a replay just before it acts: the screen may be out of date.
    """

    def __init__(self, switches: Switches, worker: Worker, poller: Poller) -> None:
        self._worker = worker
        self._poller = poller
        self._pending: str | None = None
        self._switches: dict[str, Callable[[], str]] = {
            "p": lambda: switches.profile(1),
            "P": lambda: switches.profile(-1),
            "o": lambda: switches.policy(1),
            "O": lambda: switches.policy(-1),
            "+": lambda: switches.theta(1),
            "-": lambda: switches.theta(-1),
        }

    def press(self, key: str) -> None:
        """Act on a key that switches something; ignore all others."""
        switch = self._switches.get(key)
        if switch is not None:
            self._worker.do(lambda: self._do(key, switch))

    def _do(self, key: str, switch: Callable[[], str]) -> str:
        """Switch, or return why not yet; runs in the worker."""
        again, self._pending = self._pending == key, None
        if not again:
            status = self._poller.status()
            if status is None or (status.replay is not None and status.replay.running):
                self._pending = key
                return MAY_SPOIL if status is None else SPOILS
        return switch()


def run(console: Console, keyboard: Keyboard, reader: Reader, keys: Keys, worker: Worker) -> None:
    """Run until `q`, a signal, or the end of the terminal; then restore the terminal."""
    stop = _stop_when_signalled()
    failed = _stop_when_a_thread_fails(stop)
    reader.start()
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
    """Set `stop` when a thread fails; the returned list then has the thread and its error."""
    failed: list[str] = []

    def end(ended: threading.ExceptHookArgs) -> None:
        thread = ended.thread.name if ended.thread is not None else "unknown"
        failed.append(f"thread {thread} failed: {ended.exc_value!r}")
        stop.set()

    threading.excepthook = end
    return failed


def _stop_when_signalled() -> threading.Event:
    """Return an event that Ctrl-C, SIGTERM and SIGHUP set, so that they interrupt nothing."""
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: stop.set())
    return stop
