"""The `usage` of an answer, and of the chunks of a stream."""

from __future__ import annotations

from typing import Any

from orchestrator.contracts.openai import Usage
from services.bs.engine.request import End, Event, Finished, Piece
from services.bs.http.openai.schema import StreamOptions


def usage(prompt_tokens: int, completion_tokens: int) -> Usage:
    """Return the usage of all choices together."""
    return Usage(
        prompt_tokens=prompt_tokens,
        completion_tokens=completion_tokens,
        total_tokens=prompt_tokens + completion_tokens,
    )


class StreamUsage:
    """The token counts of a stream, for its chunks as `stream_options` requests them."""

    def __init__(self, options: StreamOptions, prompt_tokens: int) -> None:
        self._options = options
        self._prompt_tokens = prompt_tokens
        self._made: dict[int, int] = {}

    def chunk(self, event: Event | None = None) -> dict[str, Any]:
        """Return the usage so far, null if only the stream's end has it, or nothing."""
        if isinstance(event, Piece | Finished):
            self._made[event.index] = event.made
        if self._options.continuous_usage_stats:
            return {"usage": usage(self._prompt_tokens, sum(self._made.values()))}
        return {"usage": None} if self._options.include_usage else {}

    def last(self, end: End) -> dict[str, Any]:
        """Return the usage for the chunk without choices at the end; nothing unless requested."""
        if not self._options.include_usage:
            return {}
        return {"usage": usage(self._prompt_tokens, end.completion_tokens)}
