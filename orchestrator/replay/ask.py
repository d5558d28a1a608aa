"""One prompt put to the base station, and its answer scored."""

from __future__ import annotations

from orchestrator.replay.client import Client
from orchestrator.replay.prompt_sets import Prompt
from orchestrator.replay.records import Request
from orchestrator.replay.scoring import exact_match, extract_answer


def ask(
    number: int,
    prompt: Prompt,
    client: Client,
    model: str,
    intended_s: float,
    *,
    routing: bool = False,
) -> tuple[Request, bytes | None]:
    """Ask now what was to be asked at `intended_s`: the request, and if asked for its routing.

    `number` is the prompt's place in its set. Whatever goes wrong is in the request.
    """
    reply = client.complete(prompt, model, routing=routing)
    answered = reply.error is None
    first_s, timings = reply.first_token_s, reply.timings
    request = Request(
        id=number,
        prompt_id=prompt.id,
        completion=reply.text,
        answer=extract_answer(reply.text),
        expected=prompt.answer,
        score=exact_match(reply.text, prompt.answer) if answered else None,
        intended_start_s=intended_s,
        actual_start_s=reply.started_s,
        time_to_first_token_s=None if first_s is None else first_s - intended_s,
        end_to_end_s=reply.ended_s - intended_s,
        http_s=reply.ended_s - reply.started_s - timings.end_to_end_s if timings else None,
        timings=timings,
        error=reply.error,
    )
    return request, reply.routing
