"""`wdmoe prompts`: the bundled prompt sets, and a check of one's own."""

from __future__ import annotations

from typing import Annotated

import typer

from orchestrator.cli import common
from orchestrator.replay import prompt_sets

SHOWN_CHARACTERS = 54

app = typer.Typer(no_args_is_help=True, help="Prompt sets.")


@app.command("list")
def list_sets(as_json: common.Json = False) -> None:
    """The bundled prompt sets: name, number of items, beginning of the first prompt."""
    sets = [prompt_sets.load(name) for name in prompt_sets.bundled()]
    rows = [(item.name, len(item.prompts), _beginning(item.prompts[0].prompt)) for item in sets]
    if as_json:
        common.print_json([{"name": name, "items": n, "first": first} for name, n, first in rows])
    else:
        common.print_table(
            ["Set", ">Items", "First prompt"], [[name, str(n), first] for name, n, first in rows]
        )


@app.command()
def check(
    prompts: Annotated[
        str, typer.Argument(metavar="SET", help="A bundled prompt set, or jsonl:PATH.")
    ],
    as_json: common.Json = False,
) -> None:
    """Check that a prompt set can be replayed; the first thing wrong with it is the error."""
    checked = prompt_sets.load(prompts)
    if as_json:
        items = len(checked.prompts)
        common.print_json({"name": checked.name, "items": items, "sha256": checked.sha256})
    else:
        typer.echo(f"{checked.path}: ok, {len(checked.prompts)} items")


def _beginning(prompt: str) -> str:
    text = " ".join(prompt.split())
    return text if len(text) <= SHOWN_CHARACTERS else text[: SHOWN_CHARACTERS - 1] + "…"
