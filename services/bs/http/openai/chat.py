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
from services.bs.http.errors import refused
from services.bs.http.openai import logprobs
from services.bs.http.openai.chat_template import ChatTemplate
from services.bs.http.openai.schema import ChatRequest
from services.bs.http.openai.usage import StreamUsage, usage
from services.bs.http.submission import Asking, Desk


def router(desk: Desk, template: ChatTemplate) -> APIRouter:
    """The route; `template` makes a prompt of a chat."""
    routes = APIRouter()

    @routes.post("/v1/chat/completions")
    async def _chat(http: HttpRequest) -> Response:
        body = await read(http, ChatRequest)
        desk.check_model(body.model)
        if body.top_logprobs and not body.logprobs:
            raise refused("top_logprobs", "allowed: with logprobs only")
        ids = await encode(desk, template, [each.for_template() for each in body.messages])
        max_tokens = _max_tokens(body, desk.room(ids))
        desk.check_length(ids, max_tokens, "messages")
        wanted = body.top_logprobs if body.logprobs else None
        asking = await desk.ask(http, "chatcmpl", body, [ids], max_tokens, body.n, logprobs=wanted)
        if body.stream:
            return sse.stream(_chunks(desk, body, asking), body.headers)
        whole = await _whole(desk, body, asking)
        return JSONResponse(whole, headers=body.headers | loss.header(whole))

    return routes


async def encode(
    desk: Desk, template: ChatTemplate, messages: list[dict[str, str]], param: str = "messages"
) -> list[int]:
    """The tokens of a chat's prompt; beside the event loop, as long ones take seconds."""

    def tokens() -> list[int]:
        return desk.vocabulary.encode(template.prompt(messages, param), special=False)[0]

    return await asyncio.to_thread(tokens)


def _max_tokens(body: ChatRequest, default: int) -> int:
    given = {body.max_tokens, body.max_completion_tokens} - {None}
    if len(given) > 1:
        raise refused("max_tokens", "allowed: equal to max_completion_tokens, or without it")
    max_tokens = given.pop() if given else default
    if not max_tokens:
        raise refused("max_tokens", "is 0, allowed: from 1")
    return max_tokens


async def _whole(desk: Desk, body: ChatRequest, asking: Asking) -> dict[str, Any]:
    texts, reasons = [""] * body.n, [""] * body.n
    tokens: list[list[TokenLogprob]] = [[] for _ in range(body.n)]
    async for event in asking.answer:
        if isinstance(event, Piece):
            texts[event.index] += event.text
            tokens[event.index] += event.tokens
        elif isinstance(event, Finished):
            reasons[event.index] = event.finish_reason
        elif isinstance(event, End):
            used = usage(asking.prompt_tokens, event.completion_tokens)
            lost = loss.field(event.experts_lost)
    choices = [
        {
            "index": index,
            "message": {"role": "assistant", "content": text, "refusal": None},
            "logprobs": logprobs.of_chat(desk.vocabulary, made) if body.logprobs else None,
            "finish_reason": reason,
        }
        for index, (text, made, reason) in enumerate(zip(texts, tokens, reasons, strict=True))
    ]
    return asking.reply("chat.completion", desk.model, choices) | {"usage": used} | lost


async def _chunks(desk: Desk, body: ChatRequest, asking: Asking) -> AsyncIterator[dict[str, Any]]:
    used = StreamUsage(body.stream_options, asking.prompt_tokens)

    def chunk(*choices: dict[str, Any]) -> dict[str, Any]:
        return asking.reply("chat.completion.chunk", desk.model, list(choices))

    for index in range(body.n):
        yield chunk(_delta(index, {"role": "assistant", "content": ""})) | used.chunk()
    async for event in asking.answer:
        if isinstance(event, Piece):
            told = logprobs.of_chat(desk.vocabulary, event.tokens) if body.logprobs else None
            delta = _delta(event.index, {"content": event.text}, told)
            yield chunk(delta) | used.chunk(event)
        elif isinstance(event, Finished):
            delta, lost = _delta(event.index, {}, reason=event.finish_reason), event.experts_lost
            yield chunk(delta) | used.chunk(event) | loss.field(lost)
        elif isinstance(event, End) and (last := used.last(event)):
            yield chunk() | last


def _delta(
    index: int,
    delta: dict[str, str],
    told: dict[str, Any] | None = None,
    reason: str | None = None,
) -> dict[str, Any]:
    return {"index": index, "delta": delta, "logprobs": told, "finish_reason": reason}
