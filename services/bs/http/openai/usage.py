"""The `usage` of an answer, and of the chunks of a stream."""

from __future__ import annotations

from typing import Any

from services.bs.engine.request import End, Event, Finished, Piece
from services.bs.http.openai.schema import StreamOptions


def usage(prompt_tokens: int, completion_tokens: int) -> dict[str, int]:
    """OpenAI's form; of all choices together."""
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
    }


class StreamUsage:
    """Counts the tokens of a stream, for its chunks as `stream_options` has them."""

    def __init__(self, options: StreamOptions, prompt_tokens: int) -> None:
        self._options = options
        self._prompt_tokens = prompt_tokens
        self._made: dict[int, int] = {}

    def chunk(self, event: Event | None = None) -> dict[str, Any]:
        """What a chunk adds: its usage so far, null where the stream's end has it, or nothing."""
        if isinstance(event, Piece | Finished):
            self._made[event.index] = event.made
        if self._options.continuous_usage_stats:
            return {"usage": usage(self._prompt_tokens, sum(self._made.values()))}
        return {"usage": None} if self._options.include_usage else {}

    def last(self, end: End) -> dict[str, Any]:
        """What a chunk without choices says at the end; nothing unless it was requested."""
        if not self._options.include_usage:
            return {}
        return {"usage": usage(self._prompt_tokens, end.completion_tokens)}
