"""`wdmoe sweep`: compare policies on the same prompts under the same fading."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from orchestrator.cli import common
from orchestrator.client.client import Client
from orchestrator.errors import InputError, StackError
from orchestrator.files.text_file import user_path
from orchestrator.host.progress_display import progress_display
from orchestrator.prompts import prompt_sets
from orchestrator.radio import profiles
from orchestrator.replay import context
from orchestrator.replay.fading import parse as parse_fading
from orchestrator.sweep.plan import Plan, policies
from orchestrator.sweep.run import Runner, recorded

# Average the speed: prompts are short and long, policies slow and fast.
SPEED_OVER_S = 600.0


def sweep(
    sets: Annotated[
        list[str], typer.Argument(metavar="SET", help="Bundled prompt sets, or FORMAT:PATH.")
    ],
    theta: Annotated[
        str, typer.Option(metavar="θ,…", help="Thresholds to run wlr with; empty: no wlr.")
    ] = "0,0.1,0.2,0.3",
    policy: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME[:PARAMETER=VALUE,…]", help="A further policy; may be given repeatedly."
        ),
    ] = None,
    profile: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME", help="A profile or its file; repeatable (default: the one in force)."
        ),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Only the first N prompts of each set.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(parser=user_path, metavar="DIR", help="Folder (default: runs/TIME-sweep)."),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Resume the sweep that was stopped in --out DIR.")
    ] = False,
    fading: common.Fading = None,
    allow_degraded: common.AllowDegraded = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the summary as JSON instead of tables.")
    ] = False,
) -> None:
    """Compare policies with topk: accuracy and latency, by prompt set and profile.

    Afterwards, also when interrupted, the previous policy and profile are restored.
    """
    if resume and out is None:
        raise InputError("--resume: --out is missing; allowed: the folder of the sweep to resume")
    begins = parse_fading(fading) or "each"
    chosen = policies(_thetas(theta), policy or [])
    prompts = tuple(prompt_sets.load(spec).head(limit) for spec in sets)
    path = out or Path("runs") / f"{time.strftime('%Y%m%d-%H%M%S')}-sweep"
    found = tuple(map(profiles.find, profile or []))
    for scenario in found:
        common.warn(scenario.warnings)
    with common.client() as client:
        plan = Plan(path, found or (client.profile(),), prompts, chosen, begins)
        record = plan.claim(resume=resume)
        for prompt_set in prompts if recorded(plan) < plan.requests else ():
            common.warn(
                f"{prompt_set.name}: {line}"
                for line in context.warnings(prompt_set.prompts, client)
            )
        with plan.alone():
            _run(plan, client, allow_degraded=allow_degraded)
    from orchestrator.sweep import report, tables  # scipy and matplotlib take a second to load

    summary = report.write(plan, record)
    if as_json:
        common.print_json(summary.model_dump())
    else:
        console = Console()
        console.width = max(console.width, tables.WIDTH)  # a pipe has no width
        console.print(tables.render(summary))
        console.print(f"Written to {path}", markup=False, highlight=False, soft_wrap=True)
    failed = sum(cell.errors for cell in summary.cells)
    if failed:
        raise StackError(
            f"{failed} of {plan.requests} requests failed; they are in the requests.jsonl of their "
            f"folders under {path}"
        )


def _run(plan: Plan, client: Client, *, allow_degraded: bool) -> None:
    """Run the sweep and show its progress."""
    with progress_display(SPEED_OVER_S) as progress:
        task = progress.add_task("sweep", total=plan.requests, completed=recorded(plan))
        Runner(
            plan,
            client,
            allow_degraded=allow_degraded,
            on_request=lambda request: progress.advance(task),
        ).run()


def _thetas(text: str) -> list[float]:
    try:
        return [float(word) for word in text.split(",") if word.strip()]
    except ValueError:
        raise InputError(
            f"--theta is {text!r}; allowed: numbers from 0 to 0.5 with commas between them"
        ) from None
