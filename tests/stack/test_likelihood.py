"""Log-likelihoods over the radio equal those of the whole model in one process."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import AutoTokenizer, MixtralForCausalLM

from orchestrator.prompts import prompt_sets
from tests.stack.conftest import MODEL, Stack

CLOSE = 1e-3
CONTEXTS = [prompt.prompt for prompt in prompt_sets.load("facts").prompts[:4]] + ["naïve 東京"]
CHOICES = [" A", " B is it", " yes\n no", " ünïcödé"]


@pytest.fixture(scope="module")
def whole() -> MixtralForCausalLM:
    model: MixtralForCausalLM = MixtralForCausalLM.from_pretrained(MODEL, dtype=torch.float32)
    model.train(False)
    return model


@torch.inference_mode()
def expected(whole: MixtralForCausalLM, ids: list[int]) -> torch.Tensor:
    """Return log-probabilities (positions × vocabulary) of each next token."""
    return torch.log_softmax(whole(torch.tensor([ids])).logits[0], dim=-1)


def check(choice: dict[str, Any], ids: list[int], rows: torch.Tensor) -> None:
    """Compare the log-probabilities from the second token on, and the likeliest ones."""
    logprobs = choice["logprobs"]
    assert logprobs["token_logprobs"][0] is None
    expected_logprobs = rows[:-1].gather(1, torch.tensor(ids[1:])[:, None])[:, 0]
    assert logprobs["token_logprobs"][1:] == pytest.approx(expected_logprobs.tolist(), abs=CLOSE)
    likeliest = [max(top.values()) for top in logprobs["top_logprobs"][1:]]
    assert likeliest == pytest.approx(rows[:-1].max(dim=1).values.tolist(), abs=CLOSE)


def test_log_likelihoods_of_choices_that_share_a_prompt(
    stack: Stack, whole: MixtralForCausalLM
) -> None:
    stack.use("ideal")
    assert stack.health()["wire_dtype"] == "fp32"
    tokenizer = AutoTokenizer.from_pretrained(MODEL)
    for context in CONTEXTS:
        texts = [context + choice for choice in CHOICES]
        reply = stack.complete(texts, max_tokens=0, echo=True, logprobs=1)
        assert [choice["text"] for choice in reply["choices"]] == texts
        for text, choice in zip(texts, reply["choices"], strict=True):
            ids = tokenizer(text)["input_ids"]
            check(choice, ids, expected(whole, ids))


def test_log_likelihoods_of_unrelated_token_lists(stack: Stack, whole: MixtralForCausalLM) -> None:
    stack.use("ideal")
    prompts = [list(range(300, 340)), [5], list(range(600, 500, -1))]
    reply = stack.complete(prompts, max_tokens=0, echo=True, logprobs=1)
    for ids, choice in zip(prompts, reply["choices"], strict=True):
        check(choice, ids, expected(whole, ids))


def test_log_likelihoods_of_generated_tokens(stack: Stack, whole: MixtralForCausalLM) -> None:
    """Evaluation harnesses request this: an echo and one generated token."""
    stack.use("ideal")
    prompts = AutoTokenizer.from_pretrained(MODEL)(CONTEXTS)["input_ids"]
    reply = stack.complete(prompts, max_tokens=1, echo=True, logprobs=1)
    for ids, choice in zip(prompts, reply["choices"], strict=True):
        generated = int(expected(whole, ids)[-1].argmax())
        check(choice, [*ids, generated], expected(whole, [*ids, generated]))
