"""`wdmoe replay`: send a prompt set through the stack and keep what was measured."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from orchestrator.cli import common
from orchestrator.errors import InputError, StackError
from orchestrator.replay import prompt_sets, table
from orchestrator.replay.client import Client
from orchestrator.replay.prompt_sets import PromptSet
from orchestrator.replay.run import Outcome
from orchestrator.replay.run import replay as run_replay

SPEED_OVER_S = 30.0


def replay(
    prompts: Annotated[
        str, typer.Argument(metavar="SET", help="A bundled prompt set, or jsonl:PATH.")
    ],
    limit: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Send only the first N prompts.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder of the run (default: runs/TIME-SET-PROFILE)."),
    ] = None,
    routing: Annotated[
        bool,
        typer.Option(
            "--routing", help="Keep how experts were chosen for each token, in DIR/routing/ID.npz."
        ),
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run that was stopped in --out DIR.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the summary as JSON instead of a table.")
    ] = False,
) -> None:
    """Send a prompt set's prompts one after another; measure, score and record every request."""
    if resume and out is None:
        raise InputError("--resume: --out is missing; allowed: the folder of the run to go on with")
    chosen = prompt_sets.load(prompts).head(limit)
    with closing(Client(common.bs_url(), common.orchestrator_url())) as client:
        outcome = _replay(chosen, client, out, routing=routing, resume=resume)
    if as_json:
        common.print_json(outcome.summary.model_dump())
    else:
        console = Console()
        console.width = max(console.width, table.WIDTH)  # a pipe, say, has no width of its own
        console.print(table.render([outcome.summary]))
        console.print(f"Written to {outcome.path}", markup=False, highlight=False, soft_wrap=True)
    failed = [request for request in outcome.requests if request.error]
    if failed:
        raise StackError(
            f"{len(failed)} of {len(outcome.requests)} requests failed, the first "
            f"({failed[0].prompt_id}): {failed[0].error}; all are in {outcome.path}/requests.jsonl"
        )


def _replay(
    prompts: PromptSet, client: Client, out: Path | None, *, routing: bool, resume: bool
) -> Outcome:
    """The run under a progress bar, where there is a terminal to show it."""
    with common.requests_bar(SPEED_OVER_S) as progress:
        task = progress.add_task(prompts.name, total=len(prompts.prompts))
        return run_replay(
            *(prompts, client, out, lambda request: progress.advance(task)),
            routing=routing,
            resume=resume,
        )
