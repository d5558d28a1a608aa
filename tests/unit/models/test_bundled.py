"""The bundled model is a small real mixture of experts that answers its prompt sets."""

import json
from random import Random

import pytest
import torch
from safetensors import safe_open
from tokenizers import Tokenizer
from transformers import AutoTokenizer, MixtralForCausalLM, PreTrainedTokenizerFast

from models.evaluate import (
    POLICIES,
    complete,
    expert_shares,
    load,
    random_k,
    selection,
)
from models.tasks import MAX_TOKENS, TASKS
from orchestrator.process.root import ROOT
from orchestrator.prompts import prompt_sets
from orchestrator.prompts.scoring import exact_match

pytestmark = pytest.mark.slow

FOLDER = ROOT / "models" / "bundled"
ITEMS = 40

Loaded = tuple[MixtralForCausalLM, PreTrainedTokenizerFast]


@pytest.fixture(scope="module")
def loaded() -> Loaded:
    return load(FOLDER)


@pytest.fixture(scope="module")
def scores(loaded: Loaded) -> dict[str, dict[str, float]]:
    """Exact match on the first items of each prompt set, by policy."""
    model, tokenizer = loaded
    result: dict[str, dict[str, float]] = {policy: {} for policy in POLICIES}
    for policy, choose in POLICIES.items():
        for name in TASKS:
            items = prompt_sets.load(name).prompts[:ITEMS]
            with selection(model, choose(0)):
                answers = complete(model, tokenizer, items)
            right = [exact_match(a, item.answer) for a, item in zip(answers, items, strict=True)]
            result[policy][name] = sum(right) / ITEMS
    return result


def test_the_architecture_is_a_small_mixtral(loaded: Loaded) -> None:
    model, _ = loaded
    config = json.loads((FOLDER / "config.json").read_text())
    assert config["architectures"] == ["MixtralForCausalLM"]
    assert model.config.num_local_experts == 8
    assert model.config.num_experts_per_tok == 2
    assert model.config.num_hidden_layers >= 4
    assert 3e6 <= sum(p.numel() for p in model.parameters()) <= 8e6


def test_the_folder_is_small() -> None:
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) <= 16 * 2**20


def test_file_holds_one_tensor_per_expert() -> None:
    with safe_open(FOLDER / "model.safetensors", "pt") as file:
        names = set(file.keys())
    assert {
        f"model.layers.{layer}.block_sparse_moe.experts.{expert}.{matrix}.weight"
        for layer in range(4)
        for expert in range(8)
        for matrix in ("w1", "w2", "w3")
    } <= names


@pytest.mark.parametrize("text", ["What is 4187 + 1001?", "naïve 東京\n\t x=1;", " yes"])
def test_tokenizer_encodes_any_text(text: str) -> None:
    plain = Tokenizer.from_file(str(FOLDER / "tokenizer.json"))
    auto = AutoTokenizer.from_pretrained(FOLDER)
    ids = plain.encode(text).ids
    assert auto(text)["input_ids"] == ids
    assert plain.decode(ids) == auto.decode(ids) == text
    assert auto.eos_token_id == plain.token_to_id("</s>")


@pytest.mark.parametrize("name", TASKS)
def test_completions_continue_the_prompt(name: str) -> None:
    tokenizer = Tokenizer.from_file(str(FOLDER / "tokenizer.json"))
    rng = Random(0)
    for item in (TASKS[name](rng) for _ in range(500)):
        prompt, completion = tokenizer.encode_batch([item.prompt, item.completion + "</s>"])
        together = tokenizer.encode(item.prompt + item.completion + "</s>")
        assert together.ids == prompt.ids + completion.ids
        assert len(completion.ids) <= MAX_TOKENS[name]


def test_the_model_answers_its_prompt_sets(scores: dict[str, dict[str, float]]) -> None:
    assert sum(value >= 0.85 for value in scores["top-2"].values()) >= 4, scores


def test_wrong_experts_cost_accuracy(scores: dict[str, dict[str, float]]) -> None:
    mean = {policy: sum(row.values()) / len(row) for policy, row in scores.items()}
    assert mean["random-2"] < mean["top-2"] - 0.2, scores


def test_every_expert_is_used(loaded: Loaded) -> None:
    model, tokenizer = loaded
    items = [item for name in TASKS for item in prompt_sets.load(name).prompts[:ITEMS]]
    answers = complete(model, tokenizer, items)
    texts = [item.prompt + answer for item, answer in zip(items, answers, strict=True)]
    shares = expert_shares(model, tokenizer, texts)
    assert shares.shape == (model.config.num_hidden_layers, 8)
    assert shares.min() >= 0.05, shares
    assert shares.max() <= 0.25, shares


def test_top_2_is_the_models_own_choice(loaded: Loaded) -> None:
    model, tokenizer = loaded
    tokens = torch.tensor([tokenizer("What is 4187 + 1001?")["input_ids"]])
    with torch.no_grad():
        own = model(input_ids=tokens).logits
        with selection(model, POLICIES["top-2"](0)):
            same = model(input_ids=tokens).logits
        with selection(model, random_k(2, seed=0)):
            other = model(input_ids=tokens).logits
        again = model(input_ids=tokens).logits
    torch.testing.assert_close(same, own)
    torch.testing.assert_close(again, own)
    assert (other - own).abs().max() > 0.1
