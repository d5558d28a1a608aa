"""What commands share: where the stack is, how it is asked, and how tables and units look."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Iterable
from typing import Annotated, Any, NoReturn

import httpx
import typer
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from orchestrator.errors import InputError, StackError
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
        help="each: a static profile is drawn anew for each prompt, any other one's fading begins "
        "anew; one: once for all.",
    ),
]


def bs_url() -> str:
    """Where the base station answers."""
    url = setting("WDMOE_BS_URL")
    return url or f"http://127.0.0.1:{_port('WDMOE_BS_PORT', '8000')}"


def orchestrator_url() -> str:
    """Where the orchestrator answers."""
    url = setting("WDMOE_ORCHESTRATOR_URL")
    return url or f"http://127.0.0.1:{_port('WDMOE_ORCHESTRATOR_PORT', '8080')}"


def _port(name: str, default: str) -> str:
    port = setting(name, default)
    if not port.isdecimal() or not 1 <= int(port) <= 65535:
        raise InputError(f"{name} is {port!r}; allowed: 1 to 65535")
    return port


def ask_bs(path: str, body: dict[str, Any] | None = None, timeout_s: float = 10) -> dict[str, Any]:
    """GET, or POST of a body, to the base station; errors as of `ask_orchestrator`."""
    return _ask("base station", bs_url(), path, body, timeout_s)


def ask_orchestrator(path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    """GET, or POST of a body, to the orchestrator.

    Raises:
        InputError: it refuses the body; in its own words.
        StackError: it does not answer, or with an error.
    """
    return _ask("orchestrator", orchestrator_url(), path, body, timeout_s=10)


def _ask(
    who: str, url: str, path: str, body: dict[str, Any] | None, timeout_s: float
) -> dict[str, Any]:
    url = url.rstrip("/")
    try:
        # Not through the environment's proxies: the stack is on this host, or named outright.
        with httpx.Client(timeout=timeout_s, trust_env=False) as client:
            method = "GET" if body is None else "POST"
            response = client.request(method, url + path, json=body)
    except httpx.TransportError:
        raise StackError(
            f"the {who} does not answer at {url}; is the stack up? (wdmoe up)"
        ) from None
    except httpx.InvalidURL as error:
        raise InputError(f"the {who}'s address {url!r} is no URL: {error}") from None
    try:
        answer = response.json()
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        raise StackError(f"what answers at {url} is not the {who} (HTTP {response.status_code})")
    if response.is_success:
        return answer
    fault = answer.get("error")  # the base station's are in OpenAI's form
    told = fault.get("message") if isinstance(fault, dict) else answer.get("detail")
    detail = str(told or f"HTTP {response.status_code}")
    if body is not None and response.status_code in (400, 413):
        raise InputError(detail)
    raise StackError(f"the {who} at {url}: {detail}")


def interrupt_when_terminated() -> None:
    """End at SIGTERM and SIGHUP as at Ctrl-C; unless they are ignored, as with nohup."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _interrupt)


def _interrupt(number: int, frame: object) -> NoReturn:
    raise KeyboardInterrupt


def print_json(value: Any) -> None:
    """What `--json` prints."""
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))


def warn(warnings: Iterable[str]) -> None:
    """Print warnings where they do not mix with a result."""
    for warning in warnings:
        typer.echo(f"Warning: {warning}", err=True)


def print_table(columns: list[str], rows: list[list[str]]) -> None:
    """Print rows under a head; a column of numbers has a name that begins with `>`."""
    table = Table(box=box.SIMPLE_HEAD)
    for name in columns:
        table.add_column(name.lstrip(">"), justify="right" if name.startswith(">") else "left")
    for row in rows:
        table.add_row(*map(Text, row))
    # A pipe has no width of its own, and a cut column is of no use to what reads it.
    Console(width=None if sys.stdout.isatty() else 200).print(table)


def quantity(value: float | None, unit: str, absent: str = "–") -> str:
    """A number with three digits and a prefix: 248 Mbit/s."""
    if value is None:
        return absent
    for factor, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= 0.9995 * factor:
            return f"{value / factor:.3g} {prefix}{unit}"
    return f"{value:.3g} {unit}"


def duration(seconds: float) -> str:
    """A duration with three digits, or in the two largest units of days, hours and minutes."""
    if seconds < 99.95:
        return f"{seconds:.3g} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"


def rate(rate_bps: float | None) -> str:
    """A link's rate."""
    return quantity(rate_bps, "bit/s", absent="not shaped")


def link(direction: dict[str, Any]) -> str:
    """One direction of a link, as `/status` tells it."""
    text = rate(direction["rate_bps"])
    if direction["delay_s"] or direction["jitter_s"]:
        text += f", {1e3 * direction['delay_s']:g} ± {1e3 * direction['jitter_s']:g} ms"
    if direction["loss_p"]:
        text += f", loss p={direction['loss_p']:g} r={direction['loss_r']:g}"
    return text
