"""`wdmoe top`: the stack in a terminal, live, with keys to switch profile, policy and θ."""

from __future__ import annotations

import io
import sys
import time
from contextlib import closing
from typing import Annotated

import typer
from pydantic_core import to_jsonable_python
from rich.console import Console

from orchestrator.cli import common
from orchestrator.client.client import Client
from orchestrator.errors import InputError, StackError
from orchestrator.top import live
from orchestrator.top.controls import Switches, Worker
from orchestrator.top.history import History
from orchestrator.top.keyboard import Keyboard
from orchestrator.top.poller import Source
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
    source = _source()
    if as_json:
        sample = _sample(source, interval_s)
        common.print_json(to_jsonable_python(sample))
        if sample.faults:
            raise StackError("; ".join(sample.faults))
        return
    console = Console()
    if not (sys.stdin.isatty() and sys.stdout.isatty()) or console.is_dumb_terminal:
        raise InputError(
            "wdmoe top draws on a terminal, and there is none here; allowed elsewhere: --json"
        )
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # without bars there still are the numbers
    with closing(Client(common.bs_url(), common.orchestrator_url())) as client:
        keyboard = Keyboard(sys.stdin.fileno())
        worker = Worker()
        keys = live.Keys(Switches(client), worker, _source())
        live.run(console, keyboard, live.Reader(source, interval_s), keys, worker)


def _source() -> Source:
    return Source(common.bs_url(), common.orchestrator_url())


def _sample(source: Source, interval_s: float) -> View:
    """What two readings amount to."""
    history = History()
    history.add(source.read())
    time.sleep(interval_s)
    newest = source.read()
    history.add(newest)
    return view(newest, history)
