"""Turning tokens into text as they come: whole characters only, and nothing of a stop string."""

from __future__ import annotations

from collections.abc import Callable, Sequence


class TextStream:
    """The text of one completion, given out as soon as it can no longer change."""

    def __init__(self, decode: Callable[[Sequence[int]], str], stop: Sequence[str]) -> None:
        self.stopped = False
        self._decode = decode
        self._stop = stop
        self._hold = max((len(s) for s in stop), default=1) - 1
        self._ids: list[int] = []
        self._given = 0

    def add(self, token: int) -> str:
        """Take a token; return the text that is certain now. `stopped` tells of a stop string."""
        self._ids.append(token)
        text = self._decode(self._ids)
        ends = [at for at in (text.find(s) for s in self._stop) if at >= 0]
        if ends:
            self.stopped = True
            return self._give(text[: min(ends)], 0)
        if text.endswith("\ufffd"):  # the first bytes of a character
            return ""
        return self._give(text, self._hold)

    def rest(self) -> str:
        """What was held back, once no more tokens come."""
        return "" if self.stopped else self._give(self._decode(self._ids), 0)

    def _give(self, text: str, hold: int) -> str:
        end = max(self._given, len(text) - hold)
        piece, self._given = text[self._given : end], end
        return piece
