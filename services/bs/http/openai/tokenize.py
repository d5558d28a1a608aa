"""POST /tokenize and /detokenize, as in vLLM: the tokens of the served model."""

from __future__ import annotations

import asyncio
from typing import Annotated, Literal

from fastapi import APIRouter
from fastapi import Request as HttpRequest
from fastapi.responses import JSONResponse
from pydantic import Field

from orchestrator.contracts.openai import Tokenized
from services.bs.http.body import read
from services.bs.http.chat.chat_template import ChatTemplate
from services.bs.http.chat.completions import encode
from services.bs.http.errors import refused
from services.bs.http.openai.schema import (
    MAX_MESSAGES,
    MAX_PROMPT_TOKENS,
    Body,
    Message,
    Name,
    NotServed,
    Text,
)
from services.bs.http.submission import ServedModel


class TokenizeBody(Body):
    """A text, or the messages of a chat."""

    model: Name | None = None
    prompt: Text | None = None
    messages: Annotated[list[Message], Field(min_length=1, max_length=MAX_MESSAGES)] | None = None
    add_special_tokens: bool | None = Field(default=None, description="for texts only")
    add_generation_prompt: Literal[True] = True
    return_token_strs: bool = False

    chat_template: NotServed = None
    chat_template_kwargs: NotServed = None
    continue_final_message: NotServed = None
    tools: NotServed = None


class DetokenizeBody(Body):
    """A list of tokens."""

    model: Name | None = None
    tokens: Annotated[list[Annotated[int, Field(ge=0)]], Field(max_length=MAX_PROMPT_TOKENS)]


def router(served: ServedModel, template: ChatTemplate) -> APIRouter:
    """Return the routes; `template` makes a prompt of a chat."""
    routes, vocabulary = APIRouter(), served.vocabulary

    async def tokens(body: TokenizeBody) -> list[int]:
        if (body.prompt is None) == (body.messages is None):
            raise refused("prompt", "allowed: either prompt or messages")
        if body.messages is not None:
            if body.add_special_tokens:
                raise refused("add_special_tokens", "allowed: with a prompt; a chat has its own")
            return await encode(served, template, [each.for_template() for each in body.messages])
        special = body.add_special_tokens is not False
        text = body.prompt or ""
        return (await asyncio.to_thread(vocabulary.encode, text, special=special))[0]

    @routes.post("/tokenize")
    async def _tokenize(http: HttpRequest) -> JSONResponse:
        body = await read(http, TokenizeBody)
        served.check_model(body.model)
        ids = await tokens(body)
        answer = Tokenized(
            count=len(ids),
            max_model_len=served.context_length,
            tokens=ids,
            token_strs=[vocabulary.name(id) for id in ids] if body.return_token_strs else None,
        )
        return JSONResponse(answer.model_dump(), headers=body.headers)

    @routes.post("/detokenize")
    async def _detokenize(http: HttpRequest) -> JSONResponse:
        body = await read(http, DetokenizeBody)
        served.check_model(body.model)
        if max(body.tokens, default=0) >= served.words:
            raise refused("tokens", f"must be from 0 to {served.words - 1}")
        text = b"".join(map(vocabulary.bytes_of, body.tokens)).decode(errors="replace")
        return JSONResponse({"prompt": text}, headers=body.headers)

    return routes
