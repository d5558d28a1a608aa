"""One run from its first look at the stack to its summary."""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import TypeAlias

from orchestrator.errors import InputError, StackError
from orchestrator.replay import chrome_trace
from orchestrator.replay.arrivals import CLOSED, Schedule
from orchestrator.replay.ask import ask
from orchestrator.replay.chrome_trace import ChromeTrace
from orchestrator.replay.client import Client, now_s
from orchestrator.replay.code_tests import CodeResult
from orchestrator.replay.loop import Answer, Ask, Due, send
from orchestrator.replay.prompt_sets import Prompt, PromptSet
from orchestrator.replay.provenance import describe
from orchestrator.replay.records import Request
from orchestrator.replay.run_folder import (
    RunFolder,
    check_free,
    default_path,
    read_code,
    read_requests,
    read_summary,
    write_summary,
)
from orchestrator.replay.summary import Summary, summarise
from orchestrator.replay.telling import Tally, Telling

# As `code_tests.judge`.
Judge: TypeAlias = Callable[
    [Sequence[Request], Sequence[Prompt], Callable[[CodeResult], None]], object
]

# The orchestrator remembers ten minutes of 50 ms intervals.
INTERVALS_EVERY_S = 60.0
# Of a schedule that sets no bound itself: each request in flight is a thread and a connection.
MOST_IN_FLIGHT = 512
# Until a schedule begins, so that all its senders are there.
LEAD_S = 0.1


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
    """

    schedule: Schedule = CLOSED
    shuffle_seed: int | None = None
    warmup: int = 0
    routing: bool = False
    goodput_limit_s: float | None = None
    trace_file: Path | None = None


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
    answers are, when all are there.

    Raises:
        InputError: `out` or the schedule cannot be used.
        StackError: the stack does not answer.
    """
    options = options or Options()
    starts_s = options.schedule.starts_s(len(prompts.prompts))
    if out is not None and not resume:
        check_free(out)
    health, channel = client.health(), client.channel()
    arrivals = options.schedule.arrivals
    run = describe(
        prompts,
        health,
        channel,
        shuffle_seed=options.shuffle_seed,
        arrivals=arrivals,
        warmup=options.warmup,
        routing=options.routing,
    )
    path = out or default_path(prompts.name, channel.profile)
    with (
        closing(RunFolder(path, run, resume=resume)) as folder,
        chrome_trace.writing(options.trace_file) as timeline,
        Telling(client) as telling,
    ):
        requests = list(folder.recorded)
        tally = Tally(prompts, requests)
        telling.show(tally)
        for request in requests:
            on_request(request)
        ask_one = _asker(client, health.model.name, options, timeline)
        done = {request.id for request in requests}
        if len(done) < len(prompts.prompts):
            _warm_up(prompts, options.warmup, _asker(client, health.model.name, options))
        _catch_up(folder, client)
        began_s = seen_s = now_s()

        def see_intervals() -> None:
            folder.add_intervals(client.intervals(max(began_s, seen_s - INTERVALS_EVERY_S)))

        due = _due(prompts, done, starts_s)
        try:
            for request, trace in send(due, ask_one, arrivals.concurrency or MOST_IN_FLIGHT):
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
        after = client.channel()
        if judge is not None:
            tested = read_code(path)
            left = [request for request in requests if request.id not in tested]

            def add_code(result: CodeResult) -> None:
                folder.add_code(result)
                tally.add_code(result)

            judge(left, prompts.prompts, add_code)
            requests = read_requests(path)
        summary = summarise(
            folder.run,
            requests,
            after,
            continuous=_continuous(folder, sent=bool(due)),
            goodput_limit_s=options.goodput_limit_s,
        )
        write_summary(path, summary)
    return Outcome(path, summary, requests)


def _asker(
    client: Client, model: str, options: Options, timeline: ChromeTrace | None = None
) -> Ask:
    on_trace = None if timeline is None else timeline.add

    def ask_one(number: int, prompt: Prompt, start_s: float) -> Answer:
        answer = ask(
            *(number, prompt, client, model, start_s), routing=options.routing, on_trace=on_trace
        )
        if answer[0].error is not None:
            client.health()  # if it is gone, what is left would fail as well
        return answer

    return ask_one


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


def _warm_up(prompts: PromptSet, count: int, ask_one: Ask) -> None:
    """Send the first prompts, over again if there are fewer."""
    for number, prompt in enumerate(islice(cycle(prompts.prompts), count)):
        ask_one(number, prompt, now_s())


def _due(prompts: PromptSet, done: Container[int], starts_s: list[float] | None) -> list[Due]:
    """What is left to send; its schedule begins now, with the first of it."""
    left = [(n, prompt) for n, prompt in enumerate(prompts.prompts) if n not in done]
    if starts_s is None or not left:
        return [Due(n, prompt) for n, prompt in left]
    begin_s = now_s() + LEAD_S - starts_s[left[0][0]]
    return [Due(n, prompt, begin_s + starts_s[n]) for n, prompt in left]
