"""POST /v1/completions."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter
from fastapi import Request as HttpRequest
from fastapi.responses import JSONResponse, Response

from orchestrator.contracts.openai import Completion, CompletionChoice
from services.bs.engine.request import Echo, End, Event, Finished, Piece
from services.bs.http import loss, sse
from services.bs.http.body import read
from services.bs.http.errors import refused
from services.bs.http.openai import logprobs
from services.bs.http.openai.schema import CompletionRequest, Prompt
from services.bs.http.openai.usage import StreamUsage, usage
from services.bs.http.submission import COMPLETION, ServedModel, Submission
from services.bs.text.tokenizer import ModelTokenizer, Offsets

DEFAULT_MAX_TOKENS = 16
MAX_LOGITS_BYTES = 64 << 20


def router(served: ServedModel) -> APIRouter:
    """Return the route."""
    routes = APIRouter()

    @routes.post("/v1/completions")
    async def _completions(http: HttpRequest) -> Response:
        body = await read(http, CompletionRequest)
        served.check_model(body.model)
        max_tokens = DEFAULT_MAX_TOKENS if body.max_tokens is None else body.max_tokens
        each = body.n if body.best_of is None else body.best_of
        _check(body, max_tokens, each)
        # In a thread: a long text takes seconds, which would block the event loop.
        prompts = await asyncio.to_thread(_read, body.prompt, served, max_tokens)
        _check_logits(body, len(prompts[0].ids) + max_tokens, served.words)
        submission = await served.submit(
            http,
            COMPLETION,
            body,
            [prompt.ids for prompt in prompts],
            max_tokens,
            each,
            logprobs=0 if body.logprobs is None and each > body.n else body.logprobs,
            echo=body.echo,
            want_logits=body.logits,
            want_routing=body.routing,
            want_trace=body.trace,
        )
        choices = _Choices(served.vocabulary, prompts, each, body)
        if body.stream:
            return sse.stream(_chunks(body, submission, choices), body.headers)
        whole = await _whole(body, submission, choices)
        headers = body.headers | loss.header(whole.experts_lost)
        return JSONResponse(whole.model_dump(), headers=headers)

    return routes


def _check(body: CompletionRequest, max_tokens: int, each: int) -> None:
    if each < body.n:
        raise refused("best_of", f"is {each}, allowed: from n, {body.n}")
    if body.stream and each > body.n:
        raise refused("best_of", f"is {each}, allowed in a stream: n, {body.n}")
    if max_tokens == 0 and not body.echo:
        raise refused("max_tokens", "is 0, allowed: from 1; 0 with echo only")
    for name in ("logits", "routing"):
        if getattr(body, name) and (body.echo or len(body.prompt) * each > 1):
            raise refused(name, "allowed: with a single prompt and choice, without echo")


def _check_logits(body: CompletionRequest, tokens: int, words: int) -> None:
    if body.logits and (size := 4 * tokens * words) > MAX_LOGITS_BYTES:
        most = MAX_LOGITS_BYTES // (4 * words)
        raise refused("logits", f"would have {size} bytes; allowed: with up to {most} tokens")


@dataclass(frozen=True)
class _Prompt:
    """A prompt's tokens, its text, and the character of it at which each token begins."""

    ids: list[int]
    text: str
    offsets: list[int]


def _read(prompts: Sequence[Prompt], served: ServedModel, max_tokens: int) -> list[_Prompt]:
    """Return every prompt; ApiError at the first that cannot be served."""
    vocabulary, known = served.vocabulary, []
    for prompt in prompts:
        if isinstance(prompt, str):
            ids, offsets = vocabulary.encode(prompt)
            served.check_length(ids, max_tokens, "prompt")
            known.append(_Prompt(ids, prompt, offsets))
        else:
            served.check_length(prompt, max_tokens, "prompt")
            offsets = Offsets(vocabulary).add(prompt)
            known.append(_Prompt(prompt, vocabulary.decode(prompt), offsets))
    return known


class _Choices:
    """The choices of a reply, to which events add; each prompt has `each` choices."""

    def __init__(
        self, vocabulary: ModelTokenizer, prompts: list[_Prompt], each: int, body: CompletionRequest
    ) -> None:
        self._vocabulary = vocabulary
        self._prompts = [prompt for prompt in prompts for _ in range(each)]
        self._each = each
        self._kept = body.n
        self._logprobs = body.logprobs is not None
        self._made: list[list[float]] = [[] for _ in self._prompts]
        self._offsets = [
            Offsets(vocabulary, start=len(prompt.text) if body.echo else 0)
            for prompt in self._prompts
        ]

    def delta(self, event: Event) -> CompletionChoice:
        """Return what an Echo, Piece or Finished adds to a choice."""
        if isinstance(event, Finished):
            return CompletionChoice(text="", index=event.index, finish_reason=event.finish_reason)
        assert isinstance(event, Echo | Piece)
        if isinstance(event, Echo):
            text, offsets = self._prompts[event.index].text, self._prompts[event.index].offsets
        else:
            text = event.text
            self._made[event.index] += [each.logprob or 0.0 for each in event.tokens]
            offsets = self._offsets[event.index].add(each.token for each in event.tokens)
        scored = None
        if self._logprobs and event.tokens:
            scored = logprobs.of_completion(self._vocabulary, event.tokens, offsets)
        return CompletionChoice(text=text, index=event.index, logprobs=scored)

    def joined(self, deltas: Sequence[CompletionChoice]) -> list[CompletionChoice]:
        """Return the n best choices of each prompt, from all that was added to them."""
        parts: list[list[CompletionChoice]] = [[] for _ in self._prompts]
        for delta in deltas:
            parts[delta.index].append(delta)
        choices = [
            CompletionChoice(
                text="".join(part.text for part in own),
                index=index,
                logprobs=logprobs.joined(part.logprobs for part in own) if self._logprobs else None,
                finish_reason=own[-1].finish_reason,
            )
            for index, own in enumerate(parts)
        ]
        return self._best(choices)

    def _best(self, choices: list[CompletionChoice]) -> list[CompletionChoice]:
        """Return the n choices of each prompt with the highest log-probability per token."""
        if self._each == self._kept:
            return choices

        def mean(index: int) -> float:
            made = self._made[index]
            return sum(made) / max(1, len(made))

        kept: list[int] = []
        for first in range(0, len(choices), self._each):
            of_prompt = range(first, first + self._each)
            kept += sorted(of_prompt, key=mean, reverse=True)[: self._kept]
        return [
            choices[index].model_copy(update={"index": number}) for number, index in enumerate(kept)
        ]


async def _whole(body: CompletionRequest, submission: Submission, choices: _Choices) -> Completion:
    deltas: list[CompletionChoice] = []
    async for event in submission.answer:
        if isinstance(event, End):
            return submission.final(
                Completion,
                choices=choices.joined(deltas),
                usage=usage(submission.prompt_tokens, event.completion_tokens),
                **loss.field(event.experts_lost),
                **_extras(body, event),
            )
        deltas.append(choices.delta(event))
    raise AssertionError("an answer ends with its End")


async def _chunks(
    body: CompletionRequest, submission: Submission, choices: _Choices
) -> AsyncIterator[dict[str, Any]]:
    used = StreamUsage(body.stream_options, submission.prompt_tokens)
    async for event in submission.answer:
        if not isinstance(event, End):
            lost = event.experts_lost if isinstance(event, Finished) else 0
            yield submission.chunk(
                Completion,
                choices=[choices.delta(event)],
                **used.chunk(event),
                **loss.field(lost),
            ).model_dump()
        elif last := _extras(body, event) | used.last(event):
            yield submission.chunk(Completion, choices=[], **last).model_dump()


def _extras(body: CompletionRequest, end: End) -> dict[str, Any]:
    """Return the fields that OpenAI does not define."""
    extras: dict[str, Any] = {}
    if body.timings:
        extras["timings"] = end.timings
    if end.logits is not None:
        extras["logits"] = end.logits.numpy().astype("<f4").tobytes()
    if end.routing is not None:
        extras["routing"] = end.routing
    if body.trace and end.trace is not None:
        extras["trace"] = end.trace.record().in_answer()
    return extras
