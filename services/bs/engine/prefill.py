"""A prompt on its way through steps, a chunk of it in each.

    prompt   │ chunk │ chunk │ rest │       others' decoding goes on in the same steps
    step         1       2      3

Where chunks end depends on the prompt alone, never on who else is served: a policy that draws gives
a prompt that is repeated the same experts.
"""

from __future__ import annotations

from collections import deque

from services.bs.batch.batch import Segment

# Of the prompts' tokens in a step; half of that is a chunk, so that a long prompt has company.
STEP_TOKENS = 1024
# A step whose tokens are all scored has as many logits at most, in fp32.
LOGITS_BYTES = 128 << 20


def step_tokens(words: int) -> int:
    """How many tokens of prompts a step takes, of a model with `words` vocabulary entries."""
    return max(2, min(STEP_TOKENS, LOGITS_BYTES // (4 * words)))


class Prefill:
    """Used by the engine's thread only.

    Attributes:
        part: the next chunk.
    """

    def __init__(
        self, ids: list[int], part: Segment, chunk: int, scored: bool, wanted: int
    ) -> None:
        """`part` is to bring `ids`, with the logits of all if `scored`, or of the last `wanted`."""
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
        """Have the part bring the next chunk."""
        self.part.ids = self._rest.popleft()
        last = self._wanted if self.is_last else 0
        self.part.wanted = len(self.part.ids) if self._scored else last
