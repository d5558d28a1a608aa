"""One prompt sent to the base station, and its answer scored."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from orchestrator.client.client import Client
from orchestrator.contracts.timings import RequestSpans
from orchestrator.prompts.prompt import ChoicePrompt, Prompt
from orchestrator.replay.fading import Realisation
from orchestrator.results.schema import Request

OnTrace: TypeAlias = Callable[[Request, RequestSpans | None], None]


def ask(
    number: int,
    prompt: Prompt,
    client: Client,
    model: str,
    intended_s: float,
    realisation: Realisation,
    *,
    routing: bool = False,
    on_trace: OnTrace | None = None,
) -> tuple[Request, bytes | None]:
    """Send a prompt now; return its request, and its routing if `routing` is set.

    `intended_s` is when it should have been sent, `number` the prompt's index in its set, and
    `realisation` is in force. Errors are recorded in the request. Multiple choice, which is several
    sequences in one request, has no routing. With `on_trace`, a trace is requested, and `on_trace`
    receives it with the request.
    """
    trace = on_trace is not None
    if isinstance(prompt, ChoicePrompt):
        reply = client.choose(prompt, model, trace=trace)
    else:
        reply = client.complete(prompt, model, routing=routing, trace=trace)
    score = prompt.score(reply.text, reply.choices)
    answered = reply.error is None
    first_s, timings = reply.first_token_s, reply.timings
    answered_s = reply.ended_s - reply.started_s - reply.backoff_s
    request = Request(
        id=number,
        prompt_id=prompt.id,
        completion=reply.text,
        answer=score.answer,
        expected=score.expected,
        score=score.value if answered else None,
        score_norm=score.value_norm if answered else None,
        choices=reply.choices,
        intended_start_s=intended_s,
        actual_start_s=reply.started_s,
        time_to_first_token_s=None if first_s is None else first_s - intended_s,
        end_to_end_s=reply.ended_s - intended_s,
        retries=reply.retries,
        backoff_s=reply.backoff_s,
        http_s=answered_s - timings.end_to_end_s if timings else None,
        timings=timings,
        error=reply.error,
        error_code=reply.error_code,
        first_interval=realisation.first_interval,
        epoch=realisation.channel.epoch,
    )
    if on_trace is not None:
        on_trace(request, reply.trace)
    return request, reply.routing
