"""POST /v1/chat/completions."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from fastapi import APIRouter
from fastapi import Request as HttpRequest
from fastapi.responses import JSONResponse, Response

from services.bs.engine.request import End, Finished, Piece, TokenLogprob
from services.bs.http import loss, sse
from services.bs.http.body import read
from services.bs.http.chat.chat_template import ChatTemplate
from services.bs.http.errors import refused
from services.bs.http.openai import logprobs
from services.bs.http.openai.schema import ChatRequest
from services.bs.http.openai.usage import StreamUsage, usage
from services.bs.http.submission import CHAT, ServedModel, Submission


def router(served: ServedModel, template: ChatTemplate) -> APIRouter:
    """Return the route; `template` makes a prompt of a chat."""
    routes = APIRouter()

    @routes.post("/v1/chat/completions")
    async def _chat(http: HttpRequest) -> Response:
        body = await read(http, ChatRequest)
        served.check_model(body.model)
        if body.top_logprobs and not body.logprobs:
            raise refused("top_logprobs", "allowed: with logprobs only")
        ids = await encode(served, template, [each.for_template() for each in body.messages])
        max_tokens = _max_tokens(body, served.room(ids))
        served.check_length(ids, max_tokens, "messages")
        wanted = body.top_logprobs if body.logprobs else None
        submission = await served.submit(
            http, CHAT, body, [ids], max_tokens, body.n, logprobs=wanted
        )
        if body.stream:
            return sse.stream(_chunks(served, body, submission), body.headers)
        whole = await _whole(served, body, submission)
        return JSONResponse(whole, headers=body.headers | loss.header(whole))

    return routes


async def encode(
    served: ServedModel,
    template: ChatTemplate,
    messages: list[dict[str, str]],
    param: str = "messages",
) -> list[int]:
    """Return the tokens of a chat's prompt; in a thread, as a long one takes seconds."""

    def tokens() -> list[int]:
        return served.vocabulary.encode(template.prompt(messages, param), special=False)[0]

    return await asyncio.to_thread(tokens)


def _max_tokens(body: ChatRequest, default: int) -> int:
    given = {body.max_tokens, body.max_completion_tokens} - {None}
    if len(given) > 1:
        raise refused("max_tokens", "allowed: equal to max_completion_tokens, or without it")
    max_tokens = given.pop() if given else default
    if not max_tokens:
        raise refused("max_tokens", "is 0, allowed: from 1")
    return max_tokens


async def _whole(served: ServedModel, body: ChatRequest, submission: Submission) -> dict[str, Any]:
    texts, reasons = [""] * body.n, [""] * body.n
    tokens: list[list[TokenLogprob]] = [[] for _ in range(body.n)]
    async for event in submission.answer:
        if isinstance(event, Piece):
            texts[event.index] += event.text
            tokens[event.index] += event.tokens
        elif isinstance(event, Finished):
            reasons[event.index] = event.finish_reason
        elif isinstance(event, End):
            used = usage(submission.prompt_tokens, event.completion_tokens)
            lost = loss.field(event.experts_lost)
    choices = [
        {
            "index": index,
            "message": {"role": "assistant", "content": text, "refusal": None},
            "logprobs": logprobs.of_chat(served.vocabulary, made) if body.logprobs else None,
            "finish_reason": reason,
        }
        for index, (text, made, reason) in enumerate(zip(texts, tokens, reasons, strict=True))
    ]
    return submission.final(choices) | {"usage": used} | lost


async def _chunks(
    served: ServedModel, body: ChatRequest, submission: Submission
) -> AsyncIterator[dict[str, Any]]:
    used = StreamUsage(body.stream_options, submission.prompt_tokens)

    def chunk(*choices: dict[str, Any]) -> dict[str, Any]:
        return submission.chunk(list(choices))

    for index in range(body.n):
        yield chunk(_delta(index, {"role": "assistant", "content": ""})) | used.chunk()
    async for event in submission.answer:
        if isinstance(event, Piece):
            scored = logprobs.of_chat(served.vocabulary, event.tokens) if body.logprobs else None
            delta = _delta(event.index, {"content": event.text}, scored)
            yield chunk(delta) | used.chunk(event)
        elif isinstance(event, Finished):
            delta, lost = _delta(event.index, {}, reason=event.finish_reason), event.experts_lost
            yield chunk(delta) | used.chunk(event) | loss.field(lost)
        elif isinstance(event, End) and (last := used.last(event)):
            yield chunk() | last


def _delta(
    index: int,
    delta: dict[str, str],
    logprobs: dict[str, Any] | None = None,
    reason: str | None = None,
) -> dict[str, Any]:
    return {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": reason}
