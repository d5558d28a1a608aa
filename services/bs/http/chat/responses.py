"""POST /v1/responses, OpenAI's newer form of a chat: one text message, whole or as events.

response.created, .in_progress    output_item.added, content_part.added
output_text.delta                 one for each token
output_text.done, content_part.done, output_item.done
response.completed                or .incomplete (out of tokens), or .failed
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from itertools import count
from typing import Any

from fastapi import APIRouter
from fastapi import Request as HttpRequest
from fastapi.responses import JSONResponse, Response

from services.bs.engine.request import End, Event, Finished, Piece, TokenLogprob
from services.bs.http import loss, sse
from services.bs.http.body import read
from services.bs.http.chat import logprobs
from services.bs.http.chat.answers import (
    OutputMessage,
    OutputText,
    ResponseAnswer,
    ResponseError,
    ResponseEvent,
    ResponseUsage,
    TokenLogprobs,
)
from services.bs.http.chat.chat_template import ChatTemplate
from services.bs.http.chat.completions import encode
from services.bs.http.chat.responses_schema import ResponsesRequest
from services.bs.http.errors import ApiError
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
        headers = body.headers | loss.header(whole.experts_lost)
        return JSONResponse(whole.model_dump(), headers=headers)

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
        self._error: ResponseError | None = None
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
        self._status = "failed"
        self._error = ResponseError(code="server_error", message=str(error))

    def part(self) -> OutputText:
        """Return the message's only part."""
        return OutputText(text=self._text, logprobs=self.logprobs(self._tokens))

    def item(self, *parts: OutputText) -> OutputMessage:
        """Return the message."""
        return OutputMessage(
            id=self.item_id,
            status="in_progress" if self._status == "failed" else self._status,
            content=list(parts),
        )

    def logprobs(self, tokens: Sequence[TokenLogprob]) -> list[TokenLogprobs]:
        """Return log-probabilities in OpenAI's form; none unless requested."""
        return logprobs.of_chat(self._served.vocabulary, tokens)

    def response(self) -> ResponseAnswer:
        """Return the whole response; without output until its end."""
        body, end, cut = self._body, self._end, self._status == "incomplete"
        return ResponseAnswer(
            id=self._submission.request.id,
            object="response",
            created_at=self._created_s,
            completed_at=int(time.time()) if self._status == "completed" else None,
            status=self._status,
            error=self._error,
            incomplete_details={"reason": "max_output_tokens"} if cut else None,
            instructions=body.instructions,
            max_output_tokens=body.max_output_tokens,
            metadata=body.metadata,
            model=self._served.name,
            output=[] if end is None else [self.item(self.part())],
            parallel_tool_calls=False,
            previous_response_id=None,
            reasoning={"effort": None, "summary": None},
            store=False,
            temperature=body.temperature or 0.0,
            text={"format": {"type": "text"}},
            tool_choice=body.tool_choice,
            tools=[],
            top_logprobs=body.top_logprobs,
            top_p=body.top_p,
            truncation=body.truncation,
            usage=None if end is None else self._usage(end.completion_tokens),
            **({} if end is None else loss.field(end.experts_lost)),
        )

    def _usage(self, completion_tokens: int) -> ResponseUsage:
        prompt_tokens = self._submission.prompt_tokens
        return ResponseUsage(
            input_tokens=prompt_tokens,
            output_tokens=completion_tokens,
            total_tokens=prompt_tokens + completion_tokens,
        )


async def _events(made: _Made, submission: Submission) -> AsyncIterator[dict[str, Any]]:
    numbers = count()

    def event(kind: str, **fields: Any) -> dict[str, Any]:
        number = next(numbers)
        return ResponseEvent(type=f"response.{kind}", sequence_number=number, **fields).model_dump()

    place = {"item_id": made.item_id, **_PLACE}
    yield event("created", response=made.response())
    yield event("in_progress", response=made.response())
    yield event("output_item.added", output_index=0, item=made.item())
    yield event("content_part.added", **place, part=made.part())
    try:
        async for each in submission.answer:
            made.take(each)
            if isinstance(each, Piece):
                scored = made.logprobs(each.tokens)
                yield event("output_text.delta", **place, delta=each.text, logprobs=scored)
    except ApiError as error:
        made.fail(error)
        yield event("failed", response=made.response())
        return
    part = made.part()
    yield event("output_text.done", **place, text=part.text, logprobs=part.logprobs)
    yield event("content_part.done", **place, part=part)
    whole = made.response()
    yield event("output_item.done", output_index=0, item=made.item(part))
    yield event(whole.status, response=whole)
