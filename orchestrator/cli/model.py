"""`wdmoe model`: describe and check a checkpoint, and build one."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import TaskID

from orchestrator.cli import common
from orchestrator.cli.common import Json, print_json
from orchestrator.errors import InputError, StackError
from orchestrator.files.text_file import user_path
from orchestrator.host.progress_display import progress_display
from orchestrator.process.root import ROOT

BUILDABLE = "smollm2-moe"
SPEED_OVER_S = 120  # layers take seconds to a minute each

app = typer.Typer(help="Checkpoints.", no_args_is_help=True)


@app.command()
def info(
    folder: Annotated[
        Path,
        typer.Argument(parser=user_path, metavar="DIR", help="A Hugging Face checkpoint."),
    ],
    as_json: Json = False,
) -> None:
    """Check that a folder holds a complete, supported mixture of experts; describe it."""
    from orchestrator.moe import model_folder  # torch takes seconds: not for every command

    checkpoint = model_folder.check(folder)
    facts = {**asdict(checkpoint.info), "fingerprint": checkpoint.fingerprint}
    if as_json:
        print_json(facts)
        return
    for name, value in facts.items():
        typer.echo(f"{name.replace('_', ' '):18} {value}")


@app.command()
def build(
    name: Annotated[str, typer.Argument(metavar="NAME", help=f"What to build: {BUILDABLE}.")],
    experts: Annotated[int, typer.Option(min=2, help="Experts of each layer.")] = 8,
    hidden: Annotated[int, typer.Option(min=1, help="Neurons of each expert.")] = 1024,
    calibration: Annotated[
        list[Path] | None,
        typer.Option(
            parser=user_path,
            metavar="FILE",
            help="A text to carve with, instead of text sampled from the model.",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of sampled texts and clusters.")] = 0,
    out: Annotated[
        Path | None,
        typer.Option(parser=user_path, metavar="DIR", help="Folder (default: models/NAME)."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Build a language model with experts on the CPU; a repeated call resumes it."""
    if name != BUILDABLE:
        raise InputError(f"model {name!r} is unknown; allowed: {BUILDABLE}")
    try:
        from models.smollm2.build import Recipe
        from models.smollm2.build import build as build_model
    except ModuleNotFoundError as error:
        raise StackError(
            f"{error.name} is not installed; pip install 'wdmoe[trunk,language-model]'"
        ) from None
    recipe = Recipe(experts, hidden, calibration or [], seed)
    path = out or ROOT / "models" / name
    common.interrupt_when_terminated()
    with progress_display(SPEED_OVER_S) as bar:
        shown: dict[str, TaskID] = {}

        def advance(what: str, done: int, total: int) -> None:
            if what not in shown:
                shown[what] = bar.add_task(what)
            bar.update(shown[what], completed=done, total=total)

        report = build_model(recipe, path, advance)
    if as_json:
        print_json({"model": str(path), **report.model_dump()})
        return
    typer.echo(
        f"Perplexity on held-out text: {report.perplexity:.2f}; "
        f"of the dense model: {report.dense_perplexity:.2f}"
    )
    typer.echo(f"Written to {path}")
