"""The room that is left in a step."""

from __future__ import annotations


class BatchRoom:
    """Room for sequences, tokens of prompts, and positions of keys and values.

    Attributes:
        is_open: nothing was refused yet; afterwards, nothing overtakes what waits.
    """

    def __init__(self, sequences: int, tokens: int, positions: int) -> None:
        self.is_open = True
        self._sequences = sequences
        self._tokens = tokens
        self._positions = positions

    def take(self, tokens: int, *, sequences: int = 0, positions: int = 0) -> bool:
        """Take room for all of it, or for nothing; return whether there was enough."""
        self.is_open = self.is_open and self.has(tokens, sequences, positions)
        if self.is_open:
            self._sequences -= sequences
            self._tokens -= tokens
            self._positions -= positions
        return self.is_open

    def has(self, tokens: int, sequences: int, positions: int) -> bool:
        """Return whether there is room for all of it."""
        return (
            sequences <= self._sequences and tokens <= self._tokens and positions <= self._positions
        )
