"""The command line `wdmoe`: commands parse and print, other packages do the work."""

from __future__ import annotations

import sys

import httpx
import typer

from orchestrator.cli import (
    compare,
    link,
    model,
    policy,
    profile,
    prompts,
    replay,
    report,
    stack,
    status,
    sweep,
    top,
)
from orchestrator.errors import InputError, StackError

app = typer.Typer(
    name="wdmoe",
    help="A testbed for mixture-of-experts models split over a base station and wireless devices.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.command()(stack.up)
app.command()(stack.down)
app.command()(status.status)
app.command()(replay.replay)
app.command()(sweep.sweep)
app.command()(compare.compare)
app.command()(report.report)
app.command()(top.top)
app.add_typer(profile.app, name="profile")
app.add_typer(policy.app, name="policy")
app.add_typer(link.app, name="link")
app.add_typer(prompts.app, name="prompts")
app.add_typer(model.app, name="model")


def main() -> None:
    """Run one command; exit code 0: done, 1: failed, 2: wrong usage. An error is one line."""
    try:
        app()
    except InputError as error:
        _fail(str(error), 2)
    except StackError as error:
        _fail(str(error), 1)
    except (httpx.HTTPError, OSError) as error:
        _fail(str(error) or type(error).__name__, 1)


def _fail(message: str, code: int) -> None:
    print(f"wdmoe: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(code)
