"""`wdmoe model`: what a checkpoint is, and whether the stack can use it."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli.common import Json, print_json

app = typer.Typer(help="Checkpoints.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Make `info` a subcommand although it is the only one so far."""


@app.command()
def info(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A Hugging Face checkpoint.")],
    as_json: Json = False,
) -> None:
    """Check that a folder is a whole, supported mixture of experts, and describe it."""
    from orchestrator.checkpoint import Checkpoint  # torch takes seconds: not for every command

    checkpoint = Checkpoint(folder)
    facts = {**asdict(checkpoint.info), "fingerprint": checkpoint.fingerprint}
    if as_json:
        print_json(facts)
        return
    for name, value in facts.items():
        typer.echo(f"{name.replace('_', ' '):18} {value}")
