"""Incremental detokenization: whole characters only, and nothing of a stop string."""

from __future__ import annotations

from collections.abc import Callable, Sequence


class IncrementalDetokenizer:
    """The text of one completion, returned as soon as it can no longer change."""

    def __init__(
        self, decode: Callable[[Sequence[int]], str], stop: Sequence[str], min_tokens: int = 0
    ) -> None:
        """Ignore stop strings that begin in the text of the first `min_tokens` tokens."""
        self.stopped = False
        self._decode = decode
        self._stop = stop
        self._longest = max(map(len, stop), default=0)
        self._min_tokens = min_tokens
        self._searched_from = 0
        self._ids: list[int] = []
        self._given = 0

    def add(self, token: int) -> str:
        """Add a token; return the text that is now final. A stop string sets `stopped`."""
        self._ids.append(token)
        text = self._decode(self._ids)
        if len(self._ids) <= self._min_tokens:
            self._searched_from = len(text)
        ends = [at for at in (text.find(s, self._searched_from) for s in self._stop) if at >= 0]
        if ends:
            self.stopped = True
            return self._give(text, min(ends))
        if text.endswith("\ufffd"):  # the first bytes of a character
            return ""
        return self._give(text, self._certain(text))

    def rest(self) -> str:
        """Return the text that was held back, once no more tokens come."""
        if self.stopped:
            return ""
        text = self._decode(self._ids)
        return self._give(text, len(text))

    def _certain(self, text: str) -> int:
        """Return where the longest suffix begins that may be the beginning of a stop string."""
        first = max(self._given, self._searched_from, len(text) - self._longest + 1)
        for at in range(first, len(text)):
            if any(s.startswith(text[at:]) for s in self._stop):
                return at
        return len(text)

    def _give(self, text: str, end: int) -> str:
        piece = text[self._given : end]
        self._given = max(self._given, end)
        return piece
