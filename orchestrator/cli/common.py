"""What commands share: the stack's addresses, its client, the format of tables and units."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Iterable
from contextlib import closing
from typing import Annotated, Any, NoReturn

import typer
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from orchestrator.client.client import Client
from orchestrator.client.service import TIMEOUT_S
from orchestrator.contracts.http import Direction
from orchestrator.errors import InputError
from orchestrator.process.environment import setting

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
AllowDegraded = Annotated[
    bool,
    typer.Option(
        "--allow-degraded",
        help="On kernels without netem, apply the rates and leave out delay, jitter and loss.",
    ),
]
Fading = Annotated[
    str | None,
    typer.Option(
        metavar="each|one",
        help="each: draw a static profile, or begin another profile's fading, anew for each "
        "prompt; one: once for all.",
    ),
]


def bs_url() -> str:
    """Return the base station's URL."""
    url = setting("WDMOE_BS_URL")
    return url or f"http://127.0.0.1:{_port('WDMOE_BS_PORT', '8000')}"


def orchestrator_url() -> str:
    """Return the orchestrator's URL."""
    url = setting("WDMOE_ORCHESTRATOR_URL")
    return url or f"http://127.0.0.1:{_port('WDMOE_ORCHESTRATOR_PORT', '8080')}"


def _port(name: str, default: str) -> str:
    port = setting(name, default)
    if not port.isdecimal() or not 1 <= int(port) <= 65535:
        raise InputError(f"{name} is {port!r}; allowed: 1 to 65535")
    return port


def client(timeout_s: float = TIMEOUT_S) -> closing[Client]:
    """Return a client of the stack for a `with` block."""
    return closing(Client(bs_url(), orchestrator_url(), timeout_s))


def interrupt_when_terminated() -> None:
    """Handle SIGTERM and SIGHUP like Ctrl-C, unless they are ignored (nohup)."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _interrupt)


def _interrupt(number: int, frame: object) -> NoReturn:
    raise KeyboardInterrupt


def print_json(value: Any) -> None:
    """Print a value as `--json` does."""
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))


def warn(warnings: Iterable[str]) -> None:
    """Print warnings to stderr, where they do not mix with a result."""
    for warning in warnings:
        typer.echo(f"Warning: {warning}", err=True)


def print_table(columns: list[str], rows: list[list[str]]) -> None:
    """Print rows under a header; a name that begins with `>` aligns its column to the right."""
    table = Table(box=box.SIMPLE_HEAD)
    for name in columns:
        table.add_column(name.lstrip(">"), justify="right" if name.startswith(">") else "left")
    for row in rows:
        table.add_row(*map(Text, row))
    # A pipe has no width, and a program that reads it cannot use cut columns.
    Console(width=None if sys.stdout.isatty() else 200).print(table)


def quantity(value: float | None, unit: str, absent: str = "–") -> str:
    """Format a number with three digits and a prefix: 248 Mbit/s."""
    if value is None:
        return absent
    for factor, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= 0.9995 * factor:
            return f"{value / factor:.3g} {prefix}{unit}"
    return f"{value:.3g} {unit}"


def duration(seconds: float) -> str:
    """Format with three digits, or in the two largest units of days, hours and minutes."""
    if seconds < 99.95:
        return f"{seconds:.3g} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"


def rate(rate_bps: float | None) -> str:
    """Format a link's rate."""
    return quantity(rate_bps, "bit/s", absent="not shaped")


def link(direction: Direction) -> str:
    """Format one direction of a link as requested."""
    text = rate(direction.rate_bps)
    if direction.delay_s or direction.jitter_s:
        text += f", {1e3 * direction.delay_s:g} ± {1e3 * direction.jitter_s:g} ms"
    if direction.loss_p:
        text += f", loss p={direction.loss_p:g} r={direction.loss_r:g}"
    return text
