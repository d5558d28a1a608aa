"""One prompt put to the base station, and its answer scored."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from orchestrator.client.client import Client, Reply
from orchestrator.prompts.prompt import ChoicePrompt, CodePrompt, Prompt
from orchestrator.prompts.scoring import (
    exact_match,
    extract_answer,
    final_number,
    likeliest,
    number_match,
)
from orchestrator.replay.fading import Realisation
from orchestrator.results.schema import Request, TraceTold

OnTrace: TypeAlias = Callable[[Request, TraceTold | None], None]


@dataclass(frozen=True)
class _Scored:
    answer: str
    expected: str
    score: float | None
    score_norm: float | None = None


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
    """Ask now what was to be asked at `intended_s`: the request, and if asked for its routing.

    It is to run under `realisation`, which is in force. `number` is the prompt's place in its set.
    Whatever goes wrong is in the request. Of a multiple choice, several sequences in one request,
    no routing is told. `on_trace` is given the request and its trace, which is asked for then.
    """
    trace = on_trace is not None
    if isinstance(prompt, ChoicePrompt):
        reply = client.choose(prompt, model, trace=trace)
    else:
        reply = client.complete(prompt, model, routing=routing, trace=trace)
    scored = _score(prompt, reply)
    answered = reply.error is None
    first_s, timings = reply.first_token_s, reply.timings
    answered_s = reply.ended_s - reply.started_s - reply.backoff_s
    request = Request(
        id=number,
        prompt_id=prompt.id,
        completion=reply.text,
        answer=scored.answer,
        expected=scored.expected,
        score=scored.score if answered else None,
        score_norm=scored.score_norm if answered else None,
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


def _score(prompt: Prompt, reply: Reply) -> _Scored:
    text, expected = reply.text, prompt.answer
    if isinstance(prompt, ChoicePrompt):
        return _score_choices(prompt, reply)
    if prompt.scoring == "number":
        return _Scored(final_number(text) or "", expected, number_match(text, expected))
    if isinstance(prompt, CodePrompt):
        return _Scored(text, expected, None)
    return _Scored(extract_answer(text), expected, exact_match(text, expected))


def _score_choices(prompt: ChoicePrompt, reply: Reply) -> _Scored:
    expected = prompt.answer.strip()
    if not reply.choices:
        return _Scored("", expected, None)
    values = [choice.log_likelihood for choice in reply.choices]
    best = likeliest(values)
    best_norm = likeliest(values, [choice.characters for choice in reply.choices])
    return _Scored(
        prompt.choices[best].strip(),
        expected,
        float(best == prompt.gold),
        float(best_norm == prompt.gold),
    )
