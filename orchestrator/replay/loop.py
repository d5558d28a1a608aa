"""The replay itself: which prompt goes out when. Each arrival process is one generator here."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from orchestrator.replay.client import Client, Reply, now_s
from orchestrator.replay.prompt_sets import Prompt
from orchestrator.replay.records import Request
from orchestrator.replay.scoring import exact_match, extract_answer


def closed_loop(
    prompts: Iterable[tuple[int, Prompt]], client: Client, model: str, *, routing: bool = False
) -> Iterator[tuple[Request, bytes | None]]:
    """One request at a time, each intended to start when the one before it has ended.

    Takes prompts with their numbers in the set; gives each request and, if asked, its routing.
    """
    for number, prompt in prompts:
        intended_s = now_s()
        reply = client.complete(prompt, model, routing=routing)
        yield _record(number, prompt, intended_s, reply), reply.routing


def _record(number: int, prompt: Prompt, intended_s: float, reply: Reply) -> Request:
    answered = reply.error is None
    first_s, timings = reply.first_token_s, reply.timings
    return Request(
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
