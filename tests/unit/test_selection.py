"""Selection: the published choice, and what is left of it when devices are out of reach."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import MixtralConfig
from transformers.models.mixtral.modeling_mixtral import MixtralTopKRouter

from orchestrator.selection import Gate, Selection, without
from orchestrator.selection.topk import TopK


def logits(seed: int, n: int = 12, experts: int = 8) -> torch.Tensor:
    return 3 * torch.randn(n, experts, generator=torch.Generator().manual_seed(seed))


def topk(logits: torch.Tensor, k: int) -> Selection:
    return TopK().select(Gate(logits, k))


@given(st.integers(0, 10_000), st.integers(2, 4))
@settings(deadline=None)
def test_topk_is_the_published_router_bit_for_bit(seed: int, k: int) -> None:
    config = MixtralConfig(hidden_size=16, num_local_experts=8, num_experts_per_tok=k)
    router = MixtralTopKRouter(config)  # type: ignore[no-untyped-call]
    torch.manual_seed(seed)
    torch.nn.init.normal_(router.weight)
    hidden = torch.randn(20, 16)
    with torch.inference_mode():
        raw, weight, index = router(hidden)
    chosen = topk(raw, k)
    assert torch.equal(chosen.index, index)
    assert torch.equal(chosen.weight, weight)


@given(
    st.integers(0, 10_000),
    st.integers(1, 4),
    st.lists(st.booleans(), min_size=8, max_size=8),
)
@settings(deadline=None)
def test_only_reachable_experts_are_used_and_weights_sum_to_one(
    seed: int, k: int, reach: list[bool]
) -> None:
    reachable = torch.tensor(reach)
    raw = logits(seed)
    kept = without(topk(raw, k), raw, reachable)
    used = kept.index < 8
    assert bool((kept.weight >= 0).all())
    assert bool((kept.weight[~used] == 0).all())
    if not any(reach):
        assert not bool(used.any())
        return
    assert bool(reachable[kept.index[used]].all())
    torch.testing.assert_close(kept.weight.sum(-1), torch.ones(12))


def test_with_everyone_in_reach_nothing_changes() -> None:
    raw = logits(1)
    chosen = topk(raw, 2)
    assert without(chosen, raw, torch.ones(8, dtype=torch.bool)) is chosen


def test_the_kept_expert_takes_over_the_weight_of_the_lost_one() -> None:
    raw = torch.tensor([[2.0, 1.0, 0.0, -1.0]])
    kept = without(topk(raw, 2), raw, torch.tensor([True, False, True, True]))
    assert kept.index.tolist() == [[0, 4]]
    assert kept.weight.tolist() == [[1.0, 0.0]]


def test_a_token_that_loses_all_its_experts_gets_its_best_other() -> None:
    raw = torch.tensor([[2.0, 1.0, 0.0, -1.0]])
    kept = without(topk(raw, 2), raw, torch.tensor([False, False, True, True]))
    assert kept.index.tolist() == [[2, 4]]
    assert kept.weight.tolist() == [[1.0, 0.0]]


def test_weights_of_three_experts_are_renormalised_over_the_two_kept() -> None:
    raw = torch.log(torch.tensor([[0.5, 0.3, 0.2]]))
    kept = without(topk(raw, 3), raw, torch.tensor([True, False, True]))
    assert kept.weight[0].tolist() == pytest.approx([0.5 / 0.7, 0.0, 0.2 / 0.7])
