"""POST /v1/chat/completions."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from fastapi import APIRouter
from fastapi import Request as HttpRequest
from fastapi.responses import JSONResponse, Response

from services.bs import events, logprobs
from services.bs.chat_template import ChatTemplate
from services.bs.desk import Asking, Desk
from services.bs.http_error import refused
from services.bs.requests import End, Finished, Piece, TokenLogprob
from services.bs.schema import ChatRequest


def router(desk: Desk, template: ChatTemplate) -> APIRouter:
    """The route; `template` makes a prompt of a chat."""
    routes = APIRouter()

    @routes.post("/v1/chat/completions")
    async def _chat(http: HttpRequest, body: ChatRequest) -> Response:
        desk.check_model(body.model)
        if body.top_logprobs is not None and not body.logprobs:
            raise refused("top_logprobs", "allowed: with logprobs only")
        messages = [{"role": m.role, "content": m.text} for m in body.messages]

        def read() -> list[int]:
            return desk.vocabulary.encode(template.prompt(messages), special=False)[0]

        ids = await asyncio.to_thread(read)  # long ones take seconds
        max_tokens = _max_tokens(body, max(1, desk.context_length - len(ids)))
        desk.check_length(ids, max_tokens, "messages")
        wanted = (body.top_logprobs or 0) if body.logprobs else None
        asking = await desk.ask(http, "chatcmpl", body, [ids], max_tokens, logprobs=wanted)
        if body.stream:
            return events.stream(_chunks(desk, body, asking))
        return JSONResponse(await _whole(desk, body, asking))

    return routes


def _max_tokens(body: ChatRequest, default: int) -> int:
    if body.max_tokens is not None and body.max_completion_tokens is not None:
        raise refused("max_tokens", "allowed: without max_completion_tokens")
    if body.max_tokens == 0:
        raise refused("max_tokens", "is 0, allowed: from 1")
    return body.max_tokens or body.max_completion_tokens or default


async def _whole(desk: Desk, body: ChatRequest, asking: Asking) -> dict[str, Any]:
    text, reason = "", ""
    tokens: list[TokenLogprob] = []
    async for event in asking.answer:
        if isinstance(event, Piece):
            text += event.text
            tokens += event.tokens
        elif isinstance(event, Finished):
            reason = event.finish_reason
        elif isinstance(event, End):
            usage = asking.usage(event)
    message = {"role": "assistant", "content": text, "refusal": None}
    told = logprobs.of_chat(desk.vocabulary, tokens) if body.logprobs else None
    choice = {"index": 0, "message": message, "logprobs": told, "finish_reason": reason}
    return asking.reply("chat.completion", desk.model, [choice]) | {"usage": usage}


async def _chunks(desk: Desk, body: ChatRequest, asking: Asking) -> AsyncIterator[dict[str, Any]]:
    usage = {"usage": None} if body.include_usage else {}

    def chunk(
        delta: dict[str, str], told: dict[str, Any] | None = None, reason: str | None = None
    ) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "logprobs": told, "finish_reason": reason}
        return asking.reply("chat.completion.chunk", desk.model, [choice]) | usage

    yield chunk({"role": "assistant", "content": ""})
    async for event in asking.answer:
        if isinstance(event, Piece):
            told = logprobs.of_chat(desk.vocabulary, event.tokens) if body.logprobs else None
            yield chunk({"content": event.text}, told)
        elif isinstance(event, Finished):
            yield chunk({}, reason=event.finish_reason)
        elif isinstance(event, End) and body.include_usage:
            last = asking.reply("chat.completion.chunk", desk.model, [])
            yield last | {"usage": asking.usage(event)}
