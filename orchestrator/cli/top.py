"""`wdmoe top`: the stack in a terminal, live, with keys to switch profile, policy and θ."""

from __future__ import annotations

import io
import sys
import time
from typing import Annotated

import typer
from pydantic_core import to_jsonable_python
from rich.console import Console

from orchestrator.cli import common
from orchestrator.errors import InputError, StackError
from orchestrator.top import live
from orchestrator.top.controls import Switches, Worker
from orchestrator.top.history import History
from orchestrator.top.keyboard import Keyboard
from orchestrator.top.poller import TIMEOUT_S, Poller
from orchestrator.top.view import View, view

INTERVAL_LEAST_S, INTERVAL_MOST_S = 0.2, 60.0


def top(
    interval_s: Annotated[
        float, typer.Option(metavar="S", help="Seconds from one reading to the next.")
    ] = 1.0,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one sample as JSON, over one interval.")
    ] = False,
) -> None:
    """Show devices, links, requests and the running replay as they change; `q` ends it."""
    if not INTERVAL_LEAST_S <= interval_s <= INTERVAL_MOST_S:
        allowed = f"{INTERVAL_LEAST_S:g} to {INTERVAL_MOST_S:g}"
        raise InputError(f"--interval-s is {interval_s:g}; allowed: {allowed}")
    with common.client(TIMEOUT_S) as reading, common.client() as switching:
        poller = Poller(reading)
        if as_json:
            _print_sample(poller, interval_s)
        else:
            _show(poller, Switches(switching), interval_s)


def _print_sample(poller: Poller, interval_s: float) -> None:
    sample = _sample(poller, interval_s)
    common.print_json(to_jsonable_python(sample))
    if sample.faults:
        raise StackError("; ".join(sample.faults))


def _show(poller: Poller, switches: Switches, interval_s: float) -> None:
    console = Console()
    if not (sys.stdin.isatty() and sys.stdout.isatty()) or console.is_dumb_terminal:
        raise InputError(
            "wdmoe top draws on a terminal, and there is none here; allowed elsewhere: --json"
        )
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # without bars, the numbers remain
    keyboard = Keyboard(sys.stdin.fileno())
    worker = Worker()
    keys = live.Keys(switches, worker, poller)
    live.run(console, keyboard, live.Reader(poller, interval_s), keys, worker)


def _sample(poller: Poller, interval_s: float) -> View:
    """Return the view of two readings, one interval apart."""
    history = History()
    history.add(poller.read())
    time.sleep(interval_s)
    newest = poller.read()
    history.add(newest)
    return view(newest, history)
