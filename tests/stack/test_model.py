"""The model split over containers has the whole model's logits, and each weight in one place."""

import base64
from functools import partial

import numpy as np
import numpy.typing as npt
import pytest
import torch
from transformers import AutoTokenizer, DynamicCache, MixtralForCausalLM

from orchestrator.moe.checkpoint import Checkpoint
from tests.stack.conftest import BUNDLED, EXPERTS, MODEL, Stack, container, docker, until

PROMPTS = [
    f"{text} {number}"
    for number in (7, 1234, 99999)
    for text in (
        "Add the numbers",
        "Is this larger than",
        "Reverse: a b c",
        "Question: who lives in",
        "The",
        "ünïcödé",
        "x",
    )
][:20]
DECODED = 16
CLOSE = 1e-4 if MODEL == BUNDLED else 1e-3  # rounding errors accumulate over more layers
Rows = npt.NDArray[np.float32]


@pytest.fixture(scope="module")
def whole() -> MixtralForCausalLM:
    model: MixtralForCausalLM = MixtralForCausalLM.from_pretrained(MODEL, dtype=torch.float32)
    model.train(False)
    return model


def test_logits_equal_those_of_one_process_with_the_whole_model(
    stack: Stack, whole: MixtralForCausalLM
) -> None:
    stack.use("ideal")
    assert stack.health()["wire_dtype"] == "fp32"
    tokenizer = AutoTokenizer.from_pretrained(MODEL)
    worst = 0.0
    for prompt in PROMPTS:
        ids = tokenizer(prompt)["input_ids"]
        rows, tokens = _split_logits(stack, ids)
        expected = _whole_logits(whole, ids, tokens)
        assert rows.shape == expected.shape
        worst = max(worst, float(np.abs(rows - expected).max()))
    print(f"largest difference over {len(PROMPTS)} prompts: {worst:.2e}")
    assert worst <= CLOSE


@torch.inference_mode()
def _whole_logits(whole: MixtralForCausalLM, ids: list[int], tokens: list[int]) -> Rows:
    """Prefill, then decode one token at a time, like the base station."""
    cache = DynamicCache(config=whole.config)
    rows = [whole(torch.tensor([ids]), past_key_values=cache).logits[0]]
    for token in tokens:
        rows.append(whole(torch.tensor([[token]]), past_key_values=cache).logits[0])
    joined: Rows = torch.cat(rows).numpy()
    return joined


def _split_logits(stack: Stack, ids: list[int]) -> tuple[Rows, list[int]]:
    """Return logits of the prompt and of 16 decoded tokens, even past an end of text."""
    rows: list[Rows] = []
    tokens: list[int] = []
    while len(tokens) <= DECODED:
        context = ids + tokens
        reply = stack.complete(context, max_tokens=DECODED + 1 - len(tokens), logits=True)
        flat = np.frombuffer(base64.b64decode(reply["logits"]), dtype="<f4")
        logits = flat.reshape(len(context) + reply["usage"]["completion_tokens"] - 1, -1)
        fresh = logits[len(context) - 1 :] if rows else logits
        rows.append(fresh)
        tokens += [int(row.argmax()) for row in logits[len(context) - 1 :]]
    return np.concatenate(rows), tokens[:DECODED]


def test_the_base_station_holds_no_expert_and_each_device_only_its_own(stack: Stack) -> None:
    checkpoint = Checkpoint(MODEL)
    info = checkpoint.info
    one_expert = info.layers * 3 * info.hidden_size * info.intermediate_size * 4
    trunk = sum(4 * tensor.numel() for _, tensor in checkpoint.trunk())
    assert stack.health()["trunk_weight_bytes"] == trunk
    for q in range(EXPERTS):
        held = f'wdmoe_expert_weight_bytes{{device="{q}"}}'
        until(partial(stack.query, held), held)
        assert float(stack.query(held)[0]["value"][1]) == one_expert


@pytest.mark.parametrize("service", ["bs", "device-0", "device-7"])
def test_no_process_keeps_the_checkpoint_mapped(stack: Stack, service: str) -> None:
    listing = docker("exec", container(service), "sh", "-c", "cat /proc/[0-9]*/maps")
    assert "libtorch" in listing
    assert ".safetensors" not in listing
