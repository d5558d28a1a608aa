"""One run, from the first query of the stack to the summary."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from orchestrator.client.client import Client, now_s
from orchestrator.errors import StackError
from orchestrator.prompts.prompt_sets import Prompt, PromptSet
from orchestrator.radio.profiles import Profile
from orchestrator.replay import chrome_trace
from orchestrator.replay.arrivals import CLOSED, Schedule
from orchestrator.replay.fading import Realisation, choose
from orchestrator.replay.progress_reporter import ProgressReporter
from orchestrator.replay.recorder import Recorder
from orchestrator.replay.sender import Numbered, Sender
from orchestrator.results.provenance import describe
from orchestrator.results.run_folder import RunFolder, check_free, default_path
from orchestrator.results.schema import CodeResult, FadingBegins, Request, Run, Stack
from orchestrator.results.summary import Summary

# The signature of `code_judge.judge`.
Judge: TypeAlias = Callable[
    [Sequence[Request], Sequence[Prompt], Callable[[CodeResult], None]], object
]

# The orchestrator remembers ten minutes of 50 ms intervals.
INTERVALS_EVERY_S = 60.0


@dataclass(frozen=True)
class Options:
    """How prompts are sent and answers are evaluated.

    Attributes:
        schedule: when each request starts.
        shuffle_seed: the seed that the set was shuffled with, for the record.
        warmup: the number of unrecorded requests sent first, one after another.
        routing: record how experts were chosen.
        goodput_limit_s: count the requests answered within this time.
        trace_file: a Chrome trace of the recorded requests.
        fading: how it begins; None: anew for each prompt if requests go one after another.
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
    """The result of a run, and its folder."""

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
    outcome. With `resume`, a run that was stopped in `out` continues with the prompts that have no
    line yet; on a schedule, with the scheduled gaps between them. `judge` tests answers that are
    programs, once all have arrived. If fading was started for requests, the stack is restored
    afterwards.

    Raises:
        InputError: `out`, the schedule or the requested fading cannot be used.
        StackError: the stack does not answer.
    """
    options = options or Options()
    starts_s = options.schedule.starts_s(len(prompts.prompts))
    if out is not None and not resume:
        check_free(out)
    stack, profile = client.stack(), client.profile()
    run = _describe(prompts, stack, profile, options)
    path = out or default_path(prompts.name, stack.channel.profile)
    with (
        closing(Recorder(RunFolder(path, run, resume=resume), prompts, on_request)) as recorder,
        chrome_trace.writing(options.trace_file) as timeline,
        ProgressReporter(client) as reporter,
    ):
        reporter.show(recorder.tally)
        for request in recorder.requests:
            on_request(request)
        done = {request.id for request in recorder.requests}
        left = [item for item in enumerate(prompts.prompts) if item[0] not in done]
        sender = Sender(
            client=client,
            model=run.base_station.model.name,
            profile=profile,
            fading=run.fading,
            in_force=Realisation(run.channel, run.channel.interval),
            concurrency=run.arrivals.concurrency,
            routing=options.routing,
            on_trace=None if timeline is None else timeline.add,
        )
        with sender.restored() if left else nullcontext():
            if left:
                sender.warm_up(prompts.prompts, options.warmup)
            recorder.catch_up(client)
            _send(sender, left, starts_s, recorder)
            after = client.stack()
        if judge is not None:
            judge(recorder.untested(), prompts.prompts, recorder.add_code)
        summary = recorder.finish(after, goodput_limit_s=options.goodput_limit_s)
    return Outcome(path, summary, recorder.requests)


def _describe(prompts: PromptSet, stack: Stack, profile: Profile, options: Options) -> Run:
    """Return the record of a run that starts now; InputError if its fading cannot be used."""
    arrivals = options.schedule.arrivals
    return describe(
        prompts,
        stack,
        shuffle_seed=options.shuffle_seed,
        arrivals=arrivals,
        warmup=options.warmup,
        routing=options.routing,
        fading=choose(profile, arrivals, options.fading, len(prompts.prompts)),
    )


def _send(
    sender: Sender, left: Sequence[Numbered], starts_s: list[float] | None, recorder: Recorder
) -> None:
    """Send what is left; record the answers as they arrive, and the intervals meanwhile."""
    began_s = seen_s = now_s()

    def see_intervals() -> None:
        since_s = max(began_s, seen_s - INTERVALS_EVERY_S)
        recorder.add_intervals(sender.client.intervals(since_s))

    try:
        for request, routing in sender.answers(left, starts_s):
            recorder.add(request, routing)
            if now_s() - seen_s > INTERVALS_EVERY_S:
                see_intervals()
                seen_s = now_s()
    except BaseException:
        with suppress(StackError):  # report what ended the run instead
            see_intervals()
        raise
    see_intervals()
