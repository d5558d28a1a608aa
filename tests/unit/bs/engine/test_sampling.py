"""Tokens are chosen as transformers' generate() and OpenAI's definitions do."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import GenerationConfig, LogitsProcessorList, MixtralForCausalLM

from models.evaluate import load
from services.bs.engine.sampling import CountPenalty, Draw, Sampling
from tests.harness.parrot import FOLDER, tokenizer

pytestmark = pytest.mark.slow

PROMPT: list[int] = tokenizer().encode("What is 45 + 38?").ids
TOKENS = 24
ENDS = frozenset([0, 3])
PENALTIES = {
    "repetition_penalty": 1.3,
    "frequency_penalty": 0.4,
    "presence_penalty": -0.7,
    "logit_bias": {20: 2.5, 21: -3, 22: 100},
    "min_tokens": 9,
}
WARPERS = {"top_k": 30, "top_p": 0.9, "min_p": 0.02}


@pytest.fixture(scope="module")
def model() -> MixtralForCausalLM:
    return load(FOLDER)[0]


def generate(model: MixtralForCausalLM, sampling: Sampling) -> Any:
    """Return what transformers generates: sequences, logits, and scores, the processed logits."""
    biases = [[[token], float(bias)] for token, bias in sampling.logit_bias.items()]
    config = GenerationConfig(  # type: ignore[no-untyped-call]
        do_sample=not sampling.greedy,
        temperature=sampling.temperature or 1.0,
        top_k=sampling.top_k,
        top_p=sampling.top_p,
        min_p=sampling.min_p or None,
        repetition_penalty=sampling.repetition_penalty,
        sequence_bias=biases or None,
        min_new_tokens=sampling.min_tokens or None,
        max_new_tokens=TOKENS,
        eos_token_id=sorted(ENDS),
        pad_token_id=1,
        output_logits=True,
        output_scores=True,
        return_dict_in_generate=True,
    )
    counted = CountPenalty(len(PROMPT), sampling.frequency_penalty, sampling.presence_penalty)
    torch.manual_seed(sampling.seed or 0)
    return model.generate(
        torch.tensor([PROMPT]),
        generation_config=config,
        logits_processor=LogitsProcessorList([counted]),
    )


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"temperature": 0.7},
        {"temperature": 1, "top_p": 0.6},
        {"temperature": 1.5, "top_k": 5},
        {"temperature": 2.0, "min_p": 0.1},
        {"temperature": 1.3, **WARPERS},
        PENALTIES,
        {"temperature": 0.9, **PENALTIES},
        {"temperature": 1.7, **PENALTIES, **WARPERS},
        *({name: value} for name, value in PENALTIES.items()),
    ],
    ids=lambda fields: "-".join(fields) or "greedy",
)
def test_scores_and_tokens_are_those_of_transformers(
    model: MixtralForCausalLM, fields: dict[str, Any]
) -> None:
    sampling = Sampling(seed=5, **fields)
    made = generate(model, sampling)
    draw = Draw(sampling, PROMPT, TOKENS, ENDS)
    tokens = made.sequences[0, len(PROMPT) :].tolist()
    assert len(tokens) >= sampling.min_tokens
    for token, logits, scores in zip(tokens, made.logits, made.scores, strict=True):
        assert torch.equal(draw.scores(logits[0]), scores[0])
        assert draw(logits[0]) == token


def test_frequency_and_presence_penalties_count_only_the_completion() -> None:
    draw = Draw(Sampling(frequency_penalty=0.5, presence_penalty=1.0), [2, 2, 2], 4, ENDS)
    logits = torch.tensor([0.0, 10, 9, 8])
    assert [draw(logits) for _ in range(3)] == [1, 2, 1]
    assert draw.scores(logits).tolist() == [0, 10 - 2 * 0.5 - 1, 9 - 0.5 - 1, 8]


def test_draws_follow_the_softmax_of_the_remaining_tokens() -> None:
    logits = torch.tensor([3.0, 2.5, 2.0, 1.0, 0.0, -1.0])
    sampling = Sampling(temperature=2.0, seed=1, top_k=4, logit_bias={0: -1.0})
    draw = Draw(sampling, [0], 4000, ENDS)
    counts = torch.tensor([draw(logits) for _ in range(4000)]).bincount(minlength=6)
    kept = torch.tensor([2.0, 2.5, 2.0, 1.0]).div(2).softmax(0)
    assert (counts[:4] / 4000).tolist() == pytest.approx(kept.tolist(), abs=0.03)
    assert counts[4:].tolist() == [0, 0]


LOGITS = st.lists(st.floats(-20, 20, width=32), min_size=2, max_size=30).map(torch.tensor)


@given(LOGITS, st.floats(0.01, 1), st.floats(0.1, 2))
def test_top_p_keeps_the_fewest_likeliest_tokens_that_reach_it(
    logits: torch.Tensor, top_p: float, temperature: float
) -> None:
    scores = Draw(Sampling(temperature=temperature, top_p=top_p), [0], 1, ENDS).scores(logits)
    kept = scores.isfinite()
    chances = (logits / temperature).softmax(0)
    assert chances[kept].sum() >= top_p - 1e-4
    least = chances[kept].min()
    assert chances[kept].sum() - least <= top_p + 1e-4
    assert chances[~kept].max() <= least if bool((~kept).any()) else True


@given(LOGITS, st.integers(1, 40), st.floats(0, 1))
def test_greedy_decoding_does_not_depend_on_the_parameters_of_draws(
    logits: torch.Tensor, top_k: int, share: float
) -> None:
    sampling = Sampling(top_k=top_k, top_p=share, min_p=share)
    assert sampling.processors(1, ENDS) == []
    assert Draw(sampling, [0], 1, ENDS)(logits) == int(logits.argmax())


def test_each_choice_has_the_next_seed() -> None:
    logits = torch.linspace(0, 2, 500)

    def drawn(seed: int, choice: int) -> list[int]:
        draw = Draw(Sampling(temperature=1.0, seed=seed), [0], 8, ENDS, choice)
        return [draw(logits) for _ in range(8)]

    assert drawn(7, 2) == drawn(9, 0) == drawn(9, 0)
    assert len({tuple(drawn(7, choice)) for choice in range(8)}) == 8
    drawn((1 << 63) - 1, 63)
    drawn(-(1 << 63), 0)
