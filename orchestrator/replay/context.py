"""A warning about prompts that are longer than the served model's context, before they are sent."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.client.client import Client
from orchestrator.prompts.prompt import Prompt

# A tokenizer makes at most one token per byte of text, but may add special tokens around it.
AROUND = 8


def warnings(prompts: Sequence[Prompt], client: Client) -> list[str]:
    """Return a warning about prompts that leave no room in the context for their answers, if any.

    Raises:
        StackError: the base station does not answer.
    """
    length = client.health().context_length
    if length is None:  # not reported
        return []
    needed = {
        prompt.id: client.count_tokens(text) + prompt.max_tokens
        for prompt in prompts
        if len((text := _longest(prompt)).encode()) + AROUND + prompt.max_tokens > length
    }
    long = {name: tokens for name, tokens in needed.items() if tokens > length}
    if not long:
        return []
    name, tokens = max(long.items(), key=lambda item: item[1])
    return [
        f"{len(long)} of {len(prompts)} prompts are longer, with max_tokens, than the model's "
        f"context of {length} tokens, and will not be answered; the longest, {name}, needs {tokens}"
    ]


def _longest(prompt: Prompt) -> str:
    """Return the text that is sent; of several, the one likely to have most tokens."""
    return max(prompt.texts, key=lambda text: len(text.encode()))
