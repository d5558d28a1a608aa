"""One run from its first look at the stack to its summary."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from orchestrator.replay.client import Client, now_s
from orchestrator.replay.loop import closed_loop
from orchestrator.replay.prompt_sets import PromptSet
from orchestrator.replay.provenance import describe
from orchestrator.replay.records import Request
from orchestrator.replay.run_folder import RunFolder, check_free, default_path, write_summary
from orchestrator.replay.summary import Summary, summarise

# The orchestrator remembers ten minutes of 50 ms intervals.
INTERVALS_EVERY_S = 60.0


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
    routing: bool = False,
    resume: bool = False,
) -> Outcome:
    """Send every prompt and write the run to `out`, or to a new folder under `runs/`.

    A failed request does not end the run, as long as the base station answers at all; it is in the
    outcome. With `resume` a run that was stopped in `out` goes on with the prompts that have no
    line yet.

    Raises:
        InputError: `out` cannot be used.
        StackError: the stack does not answer.
    """
    if out is not None and not resume:
        check_free(out)
    health, channel = client.health(), client.channel()
    run = describe(prompts, health, channel, routing=routing)
    path = out or default_path(prompts.name, channel.profile)
    began_s = seen_s = now_s()
    with closing(RunFolder(path, run, resume=resume)) as folder:
        requests = list(folder.recorded)
        for request in requests:
            on_request(request)
        done = {request.id for request in requests}
        left = [item for item in enumerate(prompts.prompts) if item[0] not in done]
        for request, trace in closed_loop(left, client, health.model.name, routing=routing):
            if request.error is not None:
                client.health()  # if it is gone, what is left would fail as well
            folder.add(request, trace)
            requests.append(request)
            on_request(request)
            if now_s() - seen_s > INTERVALS_EVERY_S:
                folder.add_intervals(client.intervals(max(began_s, seen_s - INTERVALS_EVERY_S)))
                seen_s = now_s()
        folder.add_intervals(client.intervals(max(began_s, seen_s - INTERVALS_EVERY_S)))
        summary = summarise(folder.run, requests, client.channel(), continuous=not folder.recorded)
        write_summary(path, summary)
    return Outcome(path, summary, requests)
