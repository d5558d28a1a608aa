"""Server-sent events: a stream of chunks, each a line of JSON, and [DONE]."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

from fastapi.responses import StreamingResponse

from services.bs.http.errors import ApiError
from services.bs.http.response import ClientGoneError


def stream(chunks: AsyncIterator[dict[str, Any]], headers: dict[str, str]) -> StreamingResponse:
    """Return a stream of the chunks as they come; a failure is the last of them."""
    return StreamingResponse(_lines(chunks), headers=headers, media_type="text/event-stream")


def named(events: AsyncIterator[dict[str, Any]], headers: dict[str, str]) -> StreamingResponse:
    """Return a stream of the events as they come, each named by its `type`."""
    return StreamingResponse(_named(events), headers=headers, media_type="text/event-stream")


async def _named(events: AsyncIterator[dict[str, Any]]) -> AsyncIterator[str]:
    try:
        async for event in events:
            yield f"event: {event['type']}\n{_line(json.dumps(event))}"
    except ClientGoneError:
        pass


async def _lines(chunks: AsyncIterator[dict[str, Any]]) -> AsyncIterator[str]:
    try:
        async for chunk in chunks:
            yield _line(json.dumps(chunk))
    except ApiError as error:
        yield _line(json.dumps(error.body))
    except ClientGoneError:
        pass
    else:
        yield _line("[DONE]")


def _line(data: str) -> str:
    return f"data: {data}\n\n"
