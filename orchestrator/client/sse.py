"""A streamed completion as it arrives: server-sent events, each a chunk of JSON."""

from __future__ import annotations

from collections.abc import Iterator

import httpx

from orchestrator.contracts.openai import Completion
from orchestrator.errors import one_line


class AnswerError(Exception):
    """The base station's answer is an error, or is incomplete."""


def chunks(response: httpx.Response) -> Iterator[Completion]:
    """Yield the chunks up to the stream's end.

    Raises:
        AnswerError: a chunk reports an error, or the stream is cut off.
        ValidationError: one is not a chunk.
    """
    events = _events(response)
    for data in events:
        if data == b"[DONE]":
            for _ in events:  # a connection whose answer was read to its end serves the next
                pass
            return
        chunk = Completion.model_validate_json(data)
        if chunk.error:
            raise AnswerError(one_line(chunk.error.message))
        yield chunk
    raise AnswerError("the stream ended before [DONE]")


def _events(response: httpx.Response) -> Iterator[bytes]:
    """Yield the data of each server-sent event.

    Not httpx' iter_lines(): that also splits at U+2028 and the like, which JSON texts may contain.
    """
    begun: list[bytes] = []  # parts of a line, joined once: a trace's may take megabytes
    for block in response.iter_bytes():
        begun.append(block)
        if b"\n" not in block:
            continue
        *lines, rest = b"".join(begun).split(b"\n")
        begun = [rest]
        for line in lines:
            if line.startswith(b"data:"):
                yield line.removeprefix(b"data:").strip()
