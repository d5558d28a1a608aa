"""POST /v1/chat/completions."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

from fastapi import APIRouter
from fastapi import Request as HttpRequest
from fastapi.responses import JSONResponse, Response

from services.bs.engine.request import End, Finished, Piece, TokenLogprob
from services.bs.http import loss, sse
from services.bs.http.body import read
from services.bs.http.chat import logprobs
from services.bs.http.chat.answers import (
    ChatChoice,
    ChatChunkChoice,
    ChatCompletion,
    ChatCompletionChunk,
    ChatDelta,
    ChatLogprobs,
    ChatMessage,
)
from services.bs.http.chat.chat_template import ChatTemplate
from services.bs.http.errors import refused
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
        headers = body.headers | loss.header(whole.experts_lost)
        return JSONResponse(whole.model_dump(), headers=headers)

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


async def _whole(served: ServedModel, body: ChatRequest, submission: Submission) -> ChatCompletion:
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
        ChatChoice(
            index=index,
            message=ChatMessage(content=text),
            logprobs=_logprobs(served, body, made),
            finish_reason=reason,
        )
        for index, (text, made, reason) in enumerate(zip(texts, tokens, reasons, strict=True))
    ]
    return submission.final(ChatCompletion, choices=choices, usage=used, **lost)


async def _chunks(
    served: ServedModel, body: ChatRequest, submission: Submission
) -> AsyncIterator[dict[str, Any]]:
    used = StreamUsage(body.stream_options, submission.prompt_tokens)

    def chunk(*choices: ChatChunkChoice, **fields: Any) -> dict[str, Any]:
        return submission.chunk(ChatCompletionChunk, choices=list(choices), **fields).model_dump()

    for index in range(body.n):
        delta = ChatDelta(role="assistant", content="")
        yield chunk(ChatChunkChoice(index=index, delta=delta), **used.chunk())
    async for event in submission.answer:
        if isinstance(event, Piece):
            choice = ChatChunkChoice(
                index=event.index,
                delta=ChatDelta(content=event.text),
                logprobs=_logprobs(served, body, event.tokens),
            )
            yield chunk(choice, **used.chunk(event))
        elif isinstance(event, Finished):
            choice = ChatChunkChoice(
                index=event.index, delta=ChatDelta(), finish_reason=event.finish_reason
            )
            yield chunk(choice, **used.chunk(event), **loss.field(event.experts_lost))
        elif isinstance(event, End) and (last := used.last(event)):
            yield chunk(**last)


def _logprobs(
    served: ServedModel, body: ChatRequest, tokens: Sequence[TokenLogprob]
) -> ChatLogprobs | None:
    if not body.logprobs:
        return None
    return ChatLogprobs(content=logprobs.of_chat(served.vocabulary, tokens))
