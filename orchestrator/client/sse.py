"""A streamed completion as it arrives: server-sent events, each a chunk of JSON."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
from pydantic import Base64Bytes, BaseModel

from orchestrator.results.schema import Timings, TraceTold

SHOWN_CHARACTERS = 200


class AnswerError(Exception):
    """The base station's answer is not a whole one."""


class _Choice(BaseModel):
    text: str
    finish_reason: str | None = None


class _Error(BaseModel):
    message: str


class Chunk(BaseModel):
    """What one event tells."""

    choices: list[_Choice] = []
    timings: Timings | None = None
    routing: Base64Bytes | None = None
    trace: TraceTold | None = None
    error: _Error | None = None


def chunks(response: httpx.Response) -> Iterator[Chunk]:
    """The chunks up to the stream's end.

    Raises:
        AnswerError: one tells an error, or the stream ends before its end.
        ValidationError: one is not a chunk.
    """
    events = _events(response)
    for data in events:
        if data == b"[DONE]":
            for _ in events:  # a connection whose answer was read to its end serves the next
                pass
            return
        chunk = Chunk.model_validate_json(data)
        if chunk.error:
            raise AnswerError(one_line(chunk.error.message))
        yield chunk
    raise AnswerError("the stream ended before [DONE]")


def one_line(text: str) -> str:
    """The beginning of a text of any kind, to be shown in a message."""
    return " ".join(text.split())[:SHOWN_CHARACTERS]


def _events(response: httpx.Response) -> Iterator[bytes]:
    """The data of each server-sent event.

    Not httpx' iter_lines(): that also splits at U+2028 and its like, which JSON texts may hold.
    """
    begun: list[bytes] = []  # of a line: joined once, as a trace's may be of megabytes
    for block in response.iter_bytes():
        begun.append(block)
        if b"\n" not in block:
            continue
        *lines, rest = b"".join(begun).split(b"\n")
        begun = [rest]
        for line in lines:
            if line.startswith(b"data:"):
                yield line.removeprefix(b"data:").strip()
