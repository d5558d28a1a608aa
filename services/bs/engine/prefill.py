"""Prefill: a prompt passes through steps, one chunk in each.

    prompt   │ chunk │ chunk │ rest │       other sequences decode in the same steps
    step         1       2      3

Where chunks end depends on the prompt alone, never on other requests: a policy that draws gives a
repeated prompt the same experts.
"""

from __future__ import annotations

from collections import deque

from services.bs.batch.batch import Segment

# Prompt tokens in a step; a chunk has half as many, so that a long prompt leaves room for others.
STEP_TOKENS = 1024
# Limit for the logits of a step, in fp32, when all of its tokens are scored.
LOGITS_BYTES = 128 << 20


def step_tokens(words: int) -> int:
    """Return how many prompt tokens a step takes, for a model with `words` vocabulary entries."""
    return max(2, min(STEP_TOKENS, LOGITS_BYTES // (4 * words)))


class Prefill:
    """The chunks of a prompt; used by the engine's thread only.

    Attributes:
        part: the next chunk.
    """

    def __init__(
        self, ids: list[int], part: Segment, chunk: int, scored: bool, wanted: int
    ) -> None:
        """`part` carries `ids`, with the logits of all if `scored`, else of the last `wanted`."""
        self.part = part
        self._rest = deque(ids[at : at + chunk] for at in range(0, len(ids), chunk))
        self._scored = scored
        self._wanted = wanted
        self.advance()

    @property
    def is_last(self) -> bool:
        """Whether the prompt ends with this chunk."""
        return not self._rest

    def advance(self) -> None:
        """Put the next chunk into the part."""
        self.part.ids = self._rest.popleft()
        last = self._wanted if self.is_last else 0
        self.part.wanted = len(self.part.ids) if self._scored else last
