"""POST /v1/responses, OpenAI's newer form of a chat: one text message, whole or as events.

response.created, .in_progress    output_item.added, content_part.added
output_text.delta                 one for each token
output_text.done, content_part.done, output_item.done
response.completed                or .incomplete (out of tokens), or .failed
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from itertools import count
from typing import Any

from fastapi import APIRouter
from fastapi import Request as HttpRequest
from fastapi.responses import JSONResponse, Response

from services.bs.engine.request import End, Event, Finished, Piece, TokenLogprob
from services.bs.http import loss, sse
from services.bs.http.body import read
from services.bs.http.chat.chat_template import ChatTemplate
from services.bs.http.chat.completions import encode
from services.bs.http.chat.responses_schema import ResponsesRequest
from services.bs.http.errors import ApiError
from services.bs.http.openai import logprobs
from services.bs.http.submission import RESPONSE, ServedModel, Submission

_PLACE = {"output_index": 0, "content_index": 0}


def router(served: ServedModel, template: ChatTemplate) -> APIRouter:
    """Return the route; `template` makes a prompt of a chat."""
    routes = APIRouter()

    @routes.post("/v1/responses")
    async def _responses(http: HttpRequest) -> Response:
        body = await read(http, ResponsesRequest)
        served.check_model(body.model)
        ids = await encode(served, template, body.messages, "input")
        max_tokens = body.max_output_tokens or served.room(ids)
        served.check_length(ids, max_tokens, "input")
        submission = await served.submit(
            http, RESPONSE, body, [ids], max_tokens, 1, logprobs=body.logprobs
        )
        made = _Made(served, body, submission)
        if body.stream:
            return sse.named(_events(made, submission), body.headers)
        async for event in submission.answer:
            made.take(event)
        whole = made.response()
        return JSONResponse(whole, headers=body.headers | loss.header(whole))

    return routes


class _Made:
    """A response in the making."""

    def __init__(self, served: ServedModel, body: ResponsesRequest, submission: Submission) -> None:
        self.item_id = f"msg-{submission.request.id}"
        self._served = served
        self._body = body
        self._submission = submission
        self._created_s = int(time.time())
        self._status = "in_progress"
        self._text = ""
        self._tokens: list[TokenLogprob] = []
        self._error: dict[str, str] | None = None
        self._end: End | None = None

    def take(self, event: Event) -> None:
        """Add an event from the engine."""
        if isinstance(event, Piece):
            self._text += event.text
            self._tokens += event.tokens
        elif isinstance(event, Finished):
            self._status = "completed" if event.finish_reason == "stop" else "incomplete"
        elif isinstance(event, End):
            self._end = event

    def fail(self, error: ApiError) -> None:
        """Mark the response as failed."""
        self._status, self._error = "failed", {"code": "server_error", "message": str(error)}

    def text(self) -> dict[str, Any]:
        """Return the text and its log-probabilities."""
        return {"text": self._text, "logprobs": self.logprobs(self._tokens)}

    def part(self) -> dict[str, Any]:
        """Return the message's only part."""
        return {"type": "output_text", "annotations": [], **self.text()}

    def item(self, *parts: dict[str, Any]) -> dict[str, Any]:
        """Return the message."""
        return {
            "id": self.item_id,
            "type": "message",
            "role": "assistant",
            "status": "in_progress" if self._status == "failed" else self._status,
            "content": list(parts),
        }

    def logprobs(self, tokens: list[TokenLogprob]) -> list[dict[str, Any]]:
        """Return log-probabilities in OpenAI's form; none unless requested."""
        content: list[dict[str, Any]] = logprobs.of_chat(self._served.vocabulary, tokens)["content"]
        return content

    def response(self) -> dict[str, Any]:
        """Return the whole response; without output until its end."""
        body, end, cut = self._body, self._end, self._status == "incomplete"
        return {
            "id": self._submission.request.id,
            "object": "response",
            "created_at": self._created_s,
            "completed_at": int(time.time()) if self._status == "completed" else None,
            "status": self._status,
            "error": self._error,
            "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
            "instructions": body.instructions,
            "max_output_tokens": body.max_output_tokens,
            "metadata": body.metadata,
            "model": self._served.name,
            "output": [] if end is None else [self.item(self.part())],
            "parallel_tool_calls": False,
            "previous_response_id": None,
            "reasoning": {"effort": None, "summary": None},
            "store": False,
            "temperature": body.temperature or 0.0,
            "text": {"format": {"type": "text"}},
            "tool_choice": body.tool_choice,
            "tools": [],
            "top_logprobs": body.top_logprobs,
            "top_p": body.top_p,
            "truncation": body.truncation,
            "usage": None if end is None else self._usage(end.completion_tokens),
            **({} if end is None else loss.field(end.experts_lost)),
        }

    def _usage(self, completion_tokens: int) -> dict[str, Any]:
        prompt_tokens = self._submission.prompt_tokens
        return {
            "input_tokens": prompt_tokens,
            "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
            "output_tokens": completion_tokens,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": prompt_tokens + completion_tokens,
        }


async def _events(made: _Made, submission: Submission) -> AsyncIterator[dict[str, Any]]:
    numbers = count()

    def event(kind: str, **fields: Any) -> dict[str, Any]:
        return {"type": f"response.{kind}", "sequence_number": next(numbers), **fields}

    place = {"item_id": made.item_id, **_PLACE}
    yield event("created", response=made.response())
    yield event("in_progress", response=made.response())
    yield event("output_item.added", output_index=0, item=made.item())
    yield event("content_part.added", **place, part=made.part())
    try:
        async for each in submission.answer:
            made.take(each)
            if isinstance(each, Piece):
                scored = made.logprobs(list(each.tokens))
                yield event("output_text.delta", **place, delta=each.text, logprobs=scored)
    except ApiError as error:
        made.fail(error)
        yield event("failed", response=made.response())
        return
    yield event("output_text.done", **place, **made.text())
    yield event("content_part.done", **place, part=made.part())
    whole = made.response()
    yield event("output_item.done", output_index=0, item=made.item(made.part()))
    yield event(whole["status"], response=whole)
