"""Request fields beside the prompt, compared with transformers' generate() of the whole model."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
import torch
from transformers import AutoTokenizer, GenerationConfig, MixtralForCausalLM

from orchestrator.prompts import prompt_sets
from tests.stack.conftest import MODEL, Stack

PROMPT = "What is 45 + 38?"
TOKENS = 12


@pytest.fixture(scope="module")
def whole() -> MixtralForCausalLM:
    model: MixtralForCausalLM = MixtralForCausalLM.from_pretrained(MODEL, dtype=torch.float32)
    model.train(False)
    return model


@pytest.mark.parametrize(
    ("fields", "config"),
    [
        ({}, {}),
        ({"repetition_penalty": 1.4}, {"repetition_penalty": 1.4}),
        ({"logit_bias": {"20": -100, "21": 2.5}}, {"sequence_bias": [[[20], -100.0], [[21], 2.5]]}),
        ({"min_tokens": 10}, {"min_new_tokens": 10}),
        ({"seed": 3, "temperature": 1.5}, {"do_sample": True, "temperature": 1.5, "top_k": 0}),
        (
            {"seed": 3, "temperature": 2, "top_k": 40, "top_p": 0.95, "min_p": 0.01},
            {"do_sample": True, "temperature": 2.0, "top_k": 40, "top_p": 0.95, "min_p": 0.01},
        ),
    ],
    ids=["greedy", "repetition", "bias", "min_tokens", "sampled", "truncated"],
)
def test_the_split_model_generates_the_tokens_of_transformers(
    stack: Stack, whole: MixtralForCausalLM, fields: dict[str, Any], config: dict[str, Any]
) -> None:
    stack.use("ideal")
    tokenizer = AutoTokenizer.from_pretrained(MODEL)
    ids = tokenizer(PROMPT, return_tensors="pt")["input_ids"]
    torch.manual_seed(fields.get("seed", 0))
    generated = whole.generate(
        ids,
        generation_config=GenerationConfig(  # type: ignore[no-untyped-call]
            max_new_tokens=TOKENS,
            eos_token_id=whole.generation_config.eos_token_id,
            pad_token_id=whole.generation_config.pad_token_id,
            **config,
        ),
    )
    expected = tokenizer.decode(generated[0, ids.shape[1] :], skip_special_tokens=True)
    reply = stack.complete(PROMPT, max_tokens=TOKENS, strict=True, **fields)
    assert reply["choices"][0]["text"] == expected


def test_choices_are_those_of_consecutive_seeds(stack: Stack) -> None:
    stack.use("ideal")
    sampled: dict[str, Any] = {"max_tokens": 8, "temperature": 1.5}
    several = stack.complete(PROMPT, n=3, seed=7, **sampled)
    alone = [stack.complete(PROMPT, seed=seed, **sampled) for seed in (7, 8, 9)]
    texts = [choice["text"] for choice in several["choices"]]
    assert texts == [reply["choices"][0]["text"] for reply in alone]
    made = sum(reply["usage"]["completion_tokens"] for reply in alone)
    assert several["usage"]["completion_tokens"] == made
    assert several["usage"]["prompt_tokens"] == alone[0]["usage"]["prompt_tokens"]


def test_a_stop_text_that_is_a_special_token_stops_at_that_token(stack: Stack) -> None:
    stack.use("ideal")
    prompt = prompt_sets.load("arithmetic").prompts[0].prompt
    (ended,) = stack.complete(prompt, max_tokens=64)["choices"]
    end = AutoTokenizer.from_pretrained(MODEL).eos_token
    (stopped,) = stack.complete(prompt, max_tokens=64, ignore_eos=True, stop=end)["choices"]
    assert (stopped["text"], stopped["finish_reason"]) == (ended["text"], "stop")


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (
            "/v1/completions",
            {
                "prompt": "a",
                "max_tokens": 2,
                "stream": True,
                "stream_options": {"include_usage": True, "continuous_usage_stats": True},
            },
        ),
        ("/v1/completions", {"prompt": "a", "max_tokens": 2, "ignore_eos": True, "best_of": 3}),
        (
            "/v1/chat/completions",
            {
                "messages": [{"role": "user", "content": "a", "name": None, "type": "text"}],
                "max_tokens": 2,
                "store": None,
                "metadata": {"a": "b"},
                "service_tier": None,
                "reasoning_effort": "low",
            },
        ),
    ],
)
def test_bodies_of_common_clients_are_served(stack: Stack, path: str, body: Any) -> None:
    reply = stack.bs.post(path, json=body | {"strict": True})
    assert reply.status_code == 200, reply.text


def test_an_unknown_field_is_named_in_a_header(stack: Stack) -> None:
    url = stack.bs.base_url.join("/v1/chat/completions")
    content = b'{"messages": [{"role": "user", "content": "a", "colour": 1}], "max_tokens": 1}'
    reply = httpx.post(url, content=content, trust_env=False, timeout=60)  # without a Content-Type
    assert reply.status_code == 200
    assert reply.headers["x-wdmoe-ignored-fields"] == "messages[0].colour"
