"""Log-probabilities are the whole model's, whatever prompts share and whatever else is served."""

from __future__ import annotations

import pytest
import torch
from transformers import MixtralForCausalLM

from services.bs.engine.active_request import shared_tokens
from services.bs.engine.request import TokenLogprob
from tests.harness.cell import Cell, emulating
from tests.harness.engine_room import EngineRoom, asking


@pytest.fixture
def room(cell: Cell) -> EngineRoom:
    cell.channel.state = emulating(flops=1e15)
    cell.start_all()
    return EngineRoom(cell, ends=frozenset([41]))


@torch.inference_mode()
def expected(cell: Cell, ids: list[int]) -> torch.Tensor:
    """Log-probabilities of every token (n × vocabulary) after the first i + 1."""
    model = MixtralForCausalLM.from_pretrained(cell.checkpoint.folder, dtype=torch.float32)
    logprobs: torch.Tensor = model(torch.tensor([ids])).logits[0].log_softmax(-1)
    return logprobs


def check(scored: TokenLogprob, row: torch.Tensor, top: int) -> None:
    assert scored.logprob == pytest.approx(float(row[scored.token]), abs=1e-4)
    best = row.topk(top)
    assert [token for token, _ in scored.top] == best.indices.tolist()
    assert [logprob for _, logprob in scored.top] == pytest.approx(best.values.tolist(), abs=1e-4)


PROMPTS = [[3, 14, 15, 9, 26], [3, 14, 15, 5], [3, 14, 15, 9, 2, 6, 5], [3, 14, 15, 35, 8, 9]]


@pytest.mark.parametrize("max_tokens", [0, 1, 3])
@pytest.mark.parametrize("top", [0, 2])
def test_an_echo_has_the_log_probabilities_of_the_whole_model(
    cell: Cell, room: EngineRoom, max_tokens: int, top: int
) -> None:
    scored = asking(PROMPTS, max_tokens, echo=True, logprobs=top)
    beside = [asking([[n, n + 1]], 9) for n in range(3)]
    room.serve(*beside, scored)
    for index, prompt in enumerate(PROMPTS):
        tokens = [*scored.echo(index), *scored.tokens(index)]
        ids = [token.token for token in tokens]
        assert ids[: len(prompt)] == prompt
        assert len(ids) == len(prompt) + max_tokens
        assert tokens[0] == TokenLogprob(prompt[0], None)
        for token, row in zip(tokens[1:], expected(cell, ids), strict=False):
            check(token, row, top)
    assert scored.reasons() == dict.fromkeys(range(4), "length")
    assert scored.end.completion_tokens == 4 * max_tokens


def test_a_shared_prefix_is_computed_once(room: EngineRoom) -> None:
    scored = asking(PROMPTS, 0, echo=True, logprobs=0)
    room.serve(scored)
    used = sum(scored.end.timings.experts.used.values())
    assert used == 2 * 3 * scored.end.timings.prompt_tokens
    assert scored.end.timings.prompt_tokens == 3 + sum(len(prompt) - 3 for prompt in PROMPTS)
    assert scored.end.timings.device_messages <= 3 * 4


def test_more_prompts_than_may_run_at_once_are_scored_one_after_another(
    cell: Cell, room: EngineRoom
) -> None:
    prompts = [[3, 14, n % 40, n // 40] for n in range(70)]
    scored = asking(prompts, 0, echo=True, logprobs=0)
    room.serve(scored)
    for index in (0, 33, 69):
        row = expected(cell, prompts[index])[2]
        check(scored.echo(index)[3], row, 0)
    assert sum(scored.end.timings.experts.used.values()) == 2 * 3 * (2 + 2 * 70)


def test_prompts_are_completed_as_each_would_be_alone(room: EngineRoom) -> None:
    together = asking(PROMPTS, 6)
    alone = [asking([prompt], 6) for prompt in PROMPTS]
    room.serve(together)
    for answer in alone:
        room.serve(answer)
    assert [together.text(index) for index in range(4)] == [answer.text() for answer in alone]
    assert together.end.completion_tokens == 24


def test_an_echo_without_log_probabilities_has_the_tokens(room: EngineRoom) -> None:
    answer = asking([[1, 2, 3], [1, 2, 4]], 0, echo=True)
    room.serve(answer)
    assert answer.echo(1) == [TokenLogprob(token, None) for token in (1, 2, 4)]
    assert not any(answer.text(index) for index in (0, 1))


def test_every_token_made_is_reported_even_if_its_text_is_cut(cell: Cell, room: EngineRoom) -> None:
    plain = asking([[5, 6]], 8)
    room.serve(plain)
    third = plain.text().split()[2]
    stopped = asking([[5, 6]], 8, logprobs=1, stop=(f"{third} ",))
    room.serve(stopped)
    assert stopped.reasons() == {0: "stop"}
    made = [str(token.token) for token in stopped.tokens()]
    assert made == plain.text().split()[: len(made)]
    assert len(made) == stopped.end.completion_tokens
    assert stopped.text() == "".join(f"{token} " for token in made[:-1])


@pytest.mark.parametrize(
    ("prompts", "shared"),
    [
        ([[1, 2, 3]], 0),
        ([[1, 2, 3], [1, 2, 3]], 2),
        ([[1, 2, 3], [1, 2]], 1),
        ([[1], [1, 2]], 0),
        ([[1, 2, 3], [4, 2, 3]], 0),
        ([[1, 2, 3, 4], [1, 2, 9, 4], [1, 2, 3, 4]], 2),
    ],
)
def test_each_prompt_keeps_a_token_of_its_own(prompts: list[list[int]], shared: int) -> None:
    assert shared_tokens(prompts) == shared
