"""`wdmoe replay`: send a prompt set through the stack and record the measurements."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from orchestrator.cli import common
from orchestrator.client.client import Client
from orchestrator.errors import InputError, StackError
from orchestrator.extras import code_judge
from orchestrator.files.text_file import user_path
from orchestrator.host.progress_display import progress_display
from orchestrator.prompts import prompt_sets
from orchestrator.prompts.prompt import Prompt
from orchestrator.prompts.prompt_sets import PromptSet
from orchestrator.replay import arrivals as arrival_kinds
from orchestrator.replay import chrome_trace, context
from orchestrator.replay.arrivals import Schedule
from orchestrator.replay.fading import parse as parse_fading
from orchestrator.replay.run import Options, Outcome
from orchestrator.replay.run import replay as run_replay
from orchestrator.results import table
from orchestrator.results.schema import CodeResult, Request

SPEED_OVER_S = 30.0


def replay(
    prompts: Annotated[
        str, typer.Argument(metavar="SET", help="A bundled prompt set, or FORMAT:PATH.")
    ],
    limit: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Send only the first N prompts.")
    ] = None,
    shuffle_seed: Annotated[
        int | None,
        typer.Option(min=0, metavar="S", help="Shuffle the set first, in the order of this seed."),
    ] = None,
    shots: Annotated[
        int, typer.Option(min=0, metavar="N", help="Solved examples before each prompt.")
    ] = 0,
    arrivals: Annotated[
        str,
        typer.Option(
            metavar="KIND", help="When requests start: closed, poisson, gamma or trace:FILE."
        ),
    ] = "closed",
    rate: Annotated[
        float | None, typer.Option(metavar="R", help="poisson, gamma: requests per second.")
    ] = None,
    burstiness: Annotated[
        float | None,
        typer.Option(metavar="K", help="gamma: shape of the gaps; 1 is Poisson, less is burstier."),
    ] = None,
    time_scale: Annotated[
        float | None,
        typer.Option(metavar="X", help="All but closed: factor for the times between requests."),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, metavar="S", help="poisson, gamma: the schedule's seed.")
    ] = None,
    concurrency: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=4096,
            metavar="C",
            help="Requests in flight: exactly C if closed (default 1), else at most C.",
        ),
    ] = None,
    warmup: Annotated[
        int, typer.Option(min=0, metavar="N", help="Send N prompts first that do not count.")
    ] = 0,
    goodput_limit_s: Annotated[
        float | None,
        typer.Option(metavar="X", help="Report how many requests were answered within X seconds."),
    ] = None,
    run_code: Annotated[
        bool,
        typer.Option("--run-code", help="Run the programs in the answers, and their tests."),
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            parser=user_path,
            metavar="DIR",
            help="Folder of the run (default: runs/TIME-SET-PROFILE).",
        ),
    ] = None,
    routing: Annotated[
        bool,
        typer.Option(
            "--routing", help="Record each token's choice of experts in DIR/routing/ID.npz."
        ),
    ] = False,
    trace_file: Annotated[
        Path | None,
        typer.Option(
            parser=user_path,
            metavar="FILE",
            help="Write a Chrome trace of all requests and devices, for ui.perfetto.dev.",
        ),
    ] = None,
    fading: common.Fading = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Resume the run that was stopped in --out DIR.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the summary as JSON instead of tables.")
    ] = False,
) -> None:
    """Send a prompt set's prompts; measure, score and record every request.

    Requests run one after another, or as --arrivals schedules them. Times count from a request's
    scheduled start.
    """
    if resume and out is None:
        raise InputError("--resume: --out is missing; allowed: the folder of the run to resume")
    if goodput_limit_s is not None and not 0 < goodput_limit_s < float("inf"):
        raise InputError(f"--goodput-limit-s is {goodput_limit_s:g}; allowed: a number above 0")
    schedule = arrival_kinds.choose(
        arrivals,
        rate_per_s=rate,
        burstiness=burstiness,
        time_scale=time_scale,
        concurrency=concurrency,
        seed=seed,
    )
    options = Options(
        schedule=schedule,
        shuffle_seed=shuffle_seed,
        warmup=warmup,
        routing=routing,
        goodput_limit_s=goodput_limit_s,
        trace_file=trace_file,
        fading=parse_fading(fading),
    )
    if trace_file is not None:
        chrome_trace.check_free(trace_file, out)
    chosen = prompt_sets.load(prompts, shots=shots)
    if shuffle_seed is not None:
        chosen = chosen.shuffled(shuffle_seed)
    chosen = chosen.head(limit)
    if run_code and not any(prompt.needs_tests for prompt in chosen.prompts):
        raise InputError(f"--run-code: {prompts} asks for no programs; allowed: humaneval:PATH")
    if routing and not all(prompt.generates for prompt in chosen.prompts):
        raise InputError(
            f"--routing: {prompts} has multiple choices, each several sequences in one request; "
            "allowed: with sets of single prompts"
        )
    _announce(schedule, len(chosen.prompts))
    common.interrupt_when_terminated()
    with common.client() as client:
        common.warn(context.warnings(chosen.prompts, client))
        outcome = _replay(chosen, client, out, options, run_code=run_code, resume=resume)
    if as_json:
        common.print_json(outcome.summary.model_dump())
    else:
        console = Console()
        console.width = max(console.width, table.WIDTH)  # a pipe has no width
        console.print(table.render([outcome.summary]))
        console.print(f"Written to {outcome.path}", markup=False, highlight=False, soft_wrap=True)
    failed = [request for request in outcome.requests if request.error]
    if failed:
        raise StackError(
            f"{len(failed)} of {len(outcome.requests)} requests failed, the first "
            f"({failed[0].prompt_id}): {failed[0].error}; all are in {outcome.path}/requests.jsonl"
        )


def _announce(schedule: Schedule, count: int) -> None:
    """Print how long a schedule lasts, before anything is sent."""
    starts_s = schedule.starts_s(count)
    if starts_s is not None and count > 1:
        per_s = (count - 1) / starts_s[-1] if starts_s[-1] else float("inf")
        typer.echo(
            f"{count} requests start over {common.duration(starts_s[-1])}, {per_s:.3g} a second on "
            "average",
            err=True,
        )


def _replay(
    prompts: PromptSet,
    client: Client,
    out: Path | None,
    options: Options,
    *,
    run_code: bool,
    resume: bool,
) -> Outcome:
    """Run the replay and show its progress."""
    with progress_display(SPEED_OVER_S) as progress:
        task = progress.add_task(prompts.name, total=len(prompts.prompts))

        def judge(
            requests: Sequence[Request],
            sent: Sequence[Prompt],
            on_done: Callable[[CodeResult], None],
        ) -> None:
            programs = sum(
                sent[request.id].needs_tests and request.error is None for request in requests
            )
            tests = progress.add_task("tests", total=programs)

            def done(result: CodeResult) -> None:
                on_done(result)
                progress.advance(tests)

            code_judge.judge(requests, sent, done)

        return run_replay(
            *(prompts, client, out, lambda request: progress.advance(task)),
            options=options,
            judge=judge if run_code else None,
            resume=resume,
        )
