"""One run from its first look at the stack to its summary."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from orchestrator.client.client import Client, now_s
from orchestrator.errors import InputError, StackError
from orchestrator.prompts.prompt_sets import Prompt, PromptSet
from orchestrator.replay import chrome_trace
from orchestrator.replay.arrivals import CLOSED, Schedule
from orchestrator.replay.fading import Realisation, choose
from orchestrator.replay.progress_reporter import ProgressReporter, Tally
from orchestrator.replay.sender import Sender
from orchestrator.results.provenance import describe
from orchestrator.results.run_folder import (
    RunFolder,
    check_free,
    default_path,
    read_code,
    read_intervals,
    read_requests,
    read_summary,
    write_summary,
)
from orchestrator.results.schema import CodeResult, FadingBegins, Request
from orchestrator.results.summary import Summary, summarise

# As `code_tests.judge`.
Judge: TypeAlias = Callable[
    [Sequence[Request], Sequence[Prompt], Callable[[CodeResult], None]], object
]

# The orchestrator remembers ten minutes of 50 ms intervals.
INTERVALS_EVERY_S = 60.0


@dataclass(frozen=True)
class Options:
    """How prompts are sent, and what is made of the answers.

    Attributes:
        schedule: when each request starts.
        shuffle_seed: what the set was shuffled with, for the record.
        warmup: so many requests go ahead, one after another, of which nothing is recorded.
        routing: keep how experts were chosen.
        goodput_limit_s: tell how many requests were answered within this time.
        trace_file: draw in it what happened when, of what is recorded.
        fading: how it begins; None: anew for each prompt where requests go one after another.
    """

    schedule: Schedule = CLOSED
    shuffle_seed: int | None = None
    warmup: int = 0
    routing: bool = False
    goodput_limit_s: float | None = None
    trace_file: Path | None = None
    fading: FadingBegins | None = None


@dataclass(frozen=True)
class Outcome:
    """What a run came to, and where it is written."""

    path: Path
    summary: Summary
    requests: list[Request]


def replay(
    prompts: PromptSet,
    client: Client,
    out: Path | None = None,
    on_request: Callable[[Request], None] = lambda request: None,
    *,
    options: Options | None = None,
    judge: Judge | None = None,
    resume: bool = False,
) -> Outcome:
    """Send every prompt and write the run to `out`, or to a new folder under `runs/`.

    A failed request does not end the run, as long as the base station answers at all; it is in the
    outcome. With `resume` a run that was stopped in `out` goes on with the prompts that have no
    line yet; on a schedule, with the gaps that it has between them. `judge` tests the programs that
    answers are, when all are there. Where fading is begun for requests, the stack is restored
    afterwards.

    Raises:
        InputError: `out`, the schedule, or how fading is to begin cannot be used.
        StackError: the stack does not answer.
    """
    options = options or Options()
    starts_s = options.schedule.starts_s(len(prompts.prompts))
    if out is not None and not resume:
        check_free(out)
    stack, profile = client.stack(), client.profile()
    arrivals = options.schedule.arrivals
    fading = choose(profile, arrivals, options.fading, len(prompts.prompts))
    run = describe(
        prompts,
        stack,
        shuffle_seed=options.shuffle_seed,
        arrivals=arrivals,
        warmup=options.warmup,
        routing=options.routing,
        fading=fading,
    )
    path = out or default_path(prompts.name, stack.channel.profile)
    with (
        closing(RunFolder(path, run, resume=resume)) as folder,
        chrome_trace.writing(options.trace_file) as timeline,
        ProgressReporter(client) as telling,
    ):
        requests = list(folder.recorded)
        tally = Tally(prompts, requests)
        telling.show(tally)
        for request in requests:
            on_request(request)
        done = {request.id for request in requests}
        left = [one for one in enumerate(prompts.prompts) if one[0] not in done]
        sender = Sender(
            client=client,
            model=stack.base_station.model.name,
            profile=profile,
            fading=fading,
            in_force=Realisation(stack.channel, stack.channel.interval),
            concurrency=arrivals.concurrency,
            routing=options.routing,
            on_trace=None if timeline is None else timeline.add,
        )
        with sender.restored() if left else nullcontext():
            if left:
                sender.warm_up(prompts.prompts, options.warmup)
            _catch_up(folder, client)
            began_s = seen_s = now_s()

            def see_intervals() -> None:
                folder.add_intervals(client.intervals(max(began_s, seen_s - INTERVALS_EVERY_S)))

            try:
                for request, trace in sender.answers(left, starts_s):
                    folder.add(request, trace)
                    requests.append(request)
                    tally.add(request)
                    on_request(request)
                    if now_s() - seen_s > INTERVALS_EVERY_S:
                        see_intervals()
                        seen_s = now_s()
            except BaseException:
                with suppress(StackError):  # what ended the run is told
                    see_intervals()
                raise
            see_intervals()
            after = client.stack()
        if judge is not None:
            tested = read_code(path)
            untested = [request for request in requests if request.id not in tested]

            def add_code(result: CodeResult) -> None:
                folder.add_code(result)
                tally.add_code(result)

            judge(untested, prompts.prompts, add_code)
            requests = read_requests(path)
        summary = summarise(
            folder.run,
            requests,
            after,
            intervals=read_intervals(path),
            continuous=_continuous(folder, sent=bool(left)),
            ended_now=bool(left),
            goodput_limit_s=options.goodput_limit_s,
        )
        write_summary(path, summary)
    return Outcome(path, summary, requests)


def _catch_up(folder: RunFolder, client: Client) -> None:
    """Add the intervals that a run was stopped before it could ask for."""
    if folder.recorded:
        began_s = min(one.intended_start_s for one in folder.recorded)
        ended_s = max(one.intended_start_s + one.end_to_end_s for one in folder.recorded)
        applied = client.intervals(began_s)
        folder.add_intervals([one for one in applied if one.apply_at_s <= ended_s])


def _continuous(folder: RunFolder, *, sent: bool) -> bool:
    """Whether a run had no pause; one that only summed up again is as its summary had it."""
    if sent or not folder.recorded:
        return not folder.recorded
    with suppress(InputError):  # there is none, or one of another version
        return read_summary(folder.path).requests_per_s is not None
    return False
