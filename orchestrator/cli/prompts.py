"""`wdmoe prompts`: list the bundled prompt sets and the formats, and check a set."""

from __future__ import annotations

from collections import Counter
from typing import Annotated

import typer

from orchestrator.cli import common
from orchestrator.errors import InputError, one_line
from orchestrator.prompts import prompt_sets
from orchestrator.prompts.formats import FORMATS
from orchestrator.prompts.prompt import Prompt

SHOWN_CHARACTERS = 54

app = typer.Typer(no_args_is_help=True, help="Prompt sets.")


@app.command("list")
def list_sets(as_json: common.Json = False) -> None:
    """List the bundled prompt sets (name, number of items, first prompt) and the file formats."""
    sets = [prompt_sets.load(name) for name in prompt_sets.bundled()]
    rows = [(item.name, len(item.prompts), _beginning(item.prompts[0].prompt)) for item in sets]
    if as_json:
        listed = [{"name": name, "items": n, "first": first} for name, n, first in rows]
        common.print_json({"sets": listed, "formats": list(FORMATS)})
        return
    common.print_table(
        ["Set", ">Items", "First prompt"], [[name, str(n), first] for name, n, first in rows]
    )
    typer.echo(f"Your own sets, as FORMAT:PATH: {', '.join(FORMATS)}")


@app.command()
def check(
    prompts: Annotated[
        str, typer.Argument(metavar="SET", help="A bundled prompt set, or FORMAT:PATH.")
    ],
    shots: Annotated[
        int, typer.Option(min=0, metavar="N", help="Solved examples before each prompt.")
    ] = 0,
    show: Annotated[
        int | None,
        typer.Option(min=0, metavar="I", help="Print prompt I as it is sent, counted from 0."),
    ] = None,
    as_json: common.Json = False,
) -> None:
    """Check that a prompt set can be replayed; the error names the first fault."""
    checked = prompt_sets.load(prompts, shots)
    items = len(checked.prompts)
    if show is not None and show >= items:
        raise InputError(f"--show {show}: {prompts} has {items} items; allowed: 0 to {items - 1}")
    kinds = Counter(prompt.scoring for prompt in checked.prompts)
    shown = None if show is None else checked.prompts[show]
    if as_json:
        payload = {
            "name": checked.name,
            "items": items,
            "scoring": dict(kinds),
            "template": checked.template,
            "sha256": checked.sha256,
        }
        common.print_json(payload | ({} if shown is None else {"prompt": shown.model_dump()}))
        return
    scored = ", ".join(f"{n} by {kind}" for kind, n in kinds.items())
    template = f"; template {checked.template}" if checked.template else ""
    typer.echo(f"{checked.path}: ok, {items} items, scored: {scored}{template}")
    if shown is not None:
        _print(shown)


def _print(prompt: Prompt) -> None:
    typer.echo(f"--- {prompt.id}\n{prompt.prompt}")
    for label, answer in prompt.labelled_answers:
        typer.echo(f"--- {label}\n{answer}")


def _beginning(prompt: str) -> str:
    return one_line(prompt, SHOWN_CHARACTERS)
