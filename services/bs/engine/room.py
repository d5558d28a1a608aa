"""What may still join a step."""

from __future__ import annotations


class BatchRoom:
    """Sequences, tokens of prompts, and positions of keys and values.

    Attributes:
        is_open: nobody was refused: whoever comes later does not go before one that waits.
    """

    def __init__(self, sequences: int, tokens: int, positions: int) -> None:
        self.is_open = True
        self._sequences = sequences
        self._tokens = tokens
        self._positions = positions

    def take(self, tokens: int, *, sequences: int = 0, positions: int = 0) -> bool:
        """Let tokens take part, for which there have to be so many sequences and positions more."""
        self.is_open = self.is_open and self.has(tokens, sequences, positions)
        if self.is_open:
            self._sequences -= sequences
            self._tokens -= tokens
            self._positions -= positions
        return self.is_open

    def has(self, tokens: int, sequences: int, positions: int) -> bool:
        """Whether there is room for that."""
        return (
            sequences <= self._sequences and tokens <= self._tokens and positions <= self._positions
        )
