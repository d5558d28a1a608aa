"""Token sampling, in the order of transformers' generate(), whose processors it uses.

    logits ─► logit_bias ─► repetition ─► frequency, presence ─► min_tokens ─► greedy: the largest
                                                                            │
                      draw ◄─ softmax ◄─ min_p ◄─ top_p ◄─ top_k ◄─ temperature  above 0

Processors without an effect are left out: greedy decoding without any takes the largest logit.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from transformers.generation.logits_process import (
    LogitsProcessor,
    MinNewTokensLengthLogitsProcessor,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    SequenceBiasLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

# Below this the softmax is greedy anyway, and soon not a number.
_LEAST_TEMPERATURE = 1e-6


@dataclass(frozen=True)
class Sampling:
    """The sampling parameters of a request; the defaults change nothing.

    Attributes:
        seed: of the first choice; the next choices have the next seeds. None: a new seed each time.
        top_k: 0: all tokens.
        repetition_penalty: for tokens in the prompt and after it.
        frequency_penalty, presence_penalty: for tokens after the prompt.
        logit_bias: by token.
        min_tokens: tokens to make before anything may end the completion.
    """

    temperature: float = 0.0
    seed: int | None = None
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    min_tokens: int = 0

    @property
    def greedy(self) -> bool:
        """Whether nothing is drawn."""
        return self.temperature < _LEAST_TEMPERATURE

    def processors(self, prompt_tokens: int, ends: Collection[int]) -> list[LogitsProcessor]:
        """Return the processors for a prompt of that length; min_tokens bars the tokens `ends`."""
        processors: list[LogitsProcessor] = []
        if self.logit_bias:
            bias: list[list[list[int] | float]] = [
                [[token], float(value)] for token, value in self.logit_bias.items()
            ]
            processors.append(SequenceBiasLogitsProcessor(bias))
        if self.repetition_penalty != 1:
            processors.append(RepetitionPenaltyLogitsProcessor(float(self.repetition_penalty)))
        if self.frequency_penalty or self.presence_penalty:
            penalties = self.frequency_penalty, self.presence_penalty
            processors.append(CountPenalty(prompt_tokens, *penalties))
        if self.min_tokens and ends:
            barred = self.min_tokens, list(ends)
            processors.append(MinNewTokensLengthLogitsProcessor(prompt_tokens, *barred))
        if self.greedy:
            return processors
        if self.temperature != 1:
            processors.append(TemperatureLogitsWarper(float(self.temperature)))
        if self.top_k:
            processors.append(TopKLogitsWarper(self.top_k))
        if self.top_p < 1:
            processors.append(TopPLogitsWarper(self.top_p))
        if self.min_p:
            processors.append(MinPLogitsWarper(self.min_p))
        return processors


class CountPenalty(LogitsProcessor):
    """OpenAI's frequency and presence penalties, which transformers lacks."""

    def __init__(self, prompt_tokens: int, frequency: float, presence: float) -> None:
        self._prompt_tokens = prompt_tokens
        self._frequency = frequency
        self._presence = presence

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Subtract the penalties of the tokens (1 × n) after the prompt from scores (1 × words)."""
        counts = input_ids[0, self._prompt_tokens :].bincount(minlength=scores.shape[-1])
        return scores - self._frequency * counts - self._presence * (counts > 0)


class Draw:
    """The sampler of one sequence's tokens."""

    def __init__(
        self,
        sampling: Sampling,
        prompt: Sequence[int],
        most: int,
        ends: Collection[int],
        choice: int = 0,
    ) -> None:
        """Draw at most `most` tokens; `choice` is the sequence's number within its prompt."""
        self._greedy = sampling.greedy
        self._processors = sampling.processors(len(prompt), ends)
        self._generator = torch.Generator()
        if sampling.seed is None:
            self._generator.seed()
        else:
            self._generator.manual_seed(sampling.seed + choice)
        self._count = len(prompt)
        self._ids = torch.empty(1, 0, dtype=torch.int64)
        if self._processors:
            self._ids = torch.empty(1, len(prompt) + most, dtype=torch.int64)
            self._ids[0, : len(prompt)] = torch.tensor(prompt)

    def __call__(self, logits: torch.Tensor) -> int:
        """Return the next token, by its logits (vocabulary,)."""
        scores = self.scores(logits)
        if self._greedy:
            token = int(scores.argmax())
        else:
            chances = torch.softmax(scores, dim=-1)
            token = int(torch.multinomial(chances, 1, generator=self._generator))
        if self._processors:
            self._ids[0, self._count] = token
            self._count += 1
        return token

    def scores(self, logits: torch.Tensor) -> torch.Tensor:
        """Return the logits (vocabulary,) as processed for the next token."""
        if not self._processors:
            return logits
        ids, scores = self._ids[:, : self._count], logits[None]
        for process in self._processors:
            scores = process(ids, scores)
        return scores[0]
