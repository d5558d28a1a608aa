"""Selection: invariants of every policy, and the selection when devices are out of reach."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import MixtralConfig
from transformers.models.mixtral.modeling_mixtral import MixtralTopKRouter

from orchestrator.selection import Gate, Policy, Selection, drop_unreachable, find
from orchestrator.selection.policies.topk import TopK

pytestmark = pytest.mark.slow

seeds = st.integers(0, 10_000)


def logits(seed: int, n: int = 12, experts: int = 8) -> torch.Tensor:
    return 3 * torch.randn(n, experts, generator=torch.Generator().manual_seed(seed))


def topk(raw: torch.Tensor, k: int) -> Selection:
    return TopK().select(Gate(raw, k))


@st.composite
def policies(draw: st.DrawFn) -> Policy:
    """Draw any policy with any parameters."""
    name = draw(st.sampled_from(["topk", "wlr", "top1", "random", "channel"]))
    params: dict[str, object] = {}
    if name == "wlr":
        params["theta"] = draw(st.floats(0, 0.5))
        params["strict"] = draw(st.booleans())
        params["max_drops"] = draw(st.integers(1, 5))
    if name == "channel":
        params["candidates"] = draw(st.just("2k") | st.integers(1, 20))
    return find(name, params)


latencies = st.sampled_from([0.0, math.inf]) | st.floats(1e-6, 1e3)


@st.composite
def gates(draw: st.DrawFn) -> Gate:
    """Draw any number of experts, tokens and experts per token, with outages and unshaped links."""
    t = draw(st.lists(latencies, min_size=1, max_size=12))
    seed = draw(seeds)
    raw = draw(st.sampled_from([0.0, 1.0, 60.0])) * logits(seed, draw(st.integers(1, 5)), len(t))
    return Gate(
        raw.to(draw(st.sampled_from([torch.float32, torch.bfloat16]))),
        k=draw(st.integers(1, min(4, len(t)))),
        latency_s=torch.tensor(t, dtype=torch.float64),
        generator=torch.Generator().manual_seed(seed),
    )


def check(chosen: Selection, gate: Gate) -> None:
    """Check the invariants of a selection in which every token has an expert."""
    n, experts = gate.logits.shape
    assert chosen.index.shape == chosen.weight.shape == chosen.candidates.shape == (n, gate.k)
    assert chosen.weight.dtype == torch.float32
    used = chosen.index < experts
    assert bool(used.any(dim=-1).all())
    assert bool((chosen.weight >= 0).all())
    assert bool((chosen.weight[~used] == 0).all())
    torch.testing.assert_close(chosen.weight.sum(-1), torch.ones(n))
    assert torch.equal(chosen.index[used], chosen.candidates[used])
    for row in chosen.candidates.tolist():
        assert len(set(row)) == gate.k
        assert set(row) <= set(range(experts))


@given(policies(), gates())
@settings(max_examples=400)
def test_weights_are_not_negative_and_sum_to_one_over_the_experts_kept(
    policy: Policy, gate: Gate
) -> None:
    check(policy.select(gate), gate)


@given(policies(), gates(), st.data())
@settings(max_examples=400)
def test_no_token_is_without_an_expert_while_a_device_is_reachable(
    policy: Policy, gate: Gate, data: st.DataObject
) -> None:
    experts = gate.logits.shape[-1]
    reach = data.draw(st.lists(st.booleans(), min_size=experts, max_size=experts))
    reachable = torch.tensor(reach)
    kept = drop_unreachable(policy.select(gate), gate.logits, reachable)
    used = kept.index < experts
    if not any(reach):
        assert not bool(used.any())
        assert not bool(kept.weight.any())
        return
    check(kept, gate)
    assert bool(reachable[kept.index[used]].all())


@given(seeds, st.integers(2, 4))
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


def test_top1_keeps_the_heaviest_of_the_published_choice() -> None:
    raw = logits(1)
    chosen = find("top1", {}).select(Gate(raw, 3))
    assert torch.equal(chosen.index[:, 0], raw.argmax(-1))
    assert chosen.index[:, 1:].tolist() == [[8, 8]] * 12
    assert chosen.weight.tolist() == [[1.0, 0.0, 0.0]] * 12
    assert torch.equal(chosen.candidates, topk(raw, 3).index)


def test_random_draws_every_set_of_experts_equally_often() -> None:
    n = 60_000
    generator = torch.Generator().manual_seed(1)
    index = find("random", {}).select(Gate(logits(1, n, 4), 2, generator=generator)).index
    seen = torch.bincount(4 * index.amin(-1) + index.amax(-1), minlength=16)
    pairs = seen[seen > 0].double()
    assert len(pairs) == 6
    assert float(((pairs - n / 6) ** 2 / (n / 6)).sum()) < 20.5  # χ² of 5 degrees, 0.1 %


def test_random_is_reproducible_and_uses_the_weights_of_the_gate() -> None:
    raw = torch.log(torch.tensor([[0.5, 0.3, 0.2]] * 50))
    draws = [
        find("random", {}).select(Gate(raw, 2, generator=torch.Generator().manual_seed(seed)))
        for seed in (1, 1, 2)
    ]
    assert torch.equal(draws[0].index, draws[1].index)
    assert not torch.equal(draws[0].index, draws[2].index)
    share = torch.tensor([0.5, 0.3, 0.2])[draws[0].index]
    torch.testing.assert_close(draws[0].weight, share / share.sum(-1, keepdim=True))


def channel(raw: torch.Tensor, t: list[float], **params: object) -> Selection:
    return find("channel", params).select(Gate(raw, 2, torch.tensor(t, dtype=torch.float64)))


def test_channel_selects_the_fastest_of_the_heaviest() -> None:
    raw = torch.log(torch.tensor([[0.1, 0.3, 0.24, 0.16, 0.2]]))
    t = [0.0, 4.0, 3.0, 1.0, 2.0]
    assert channel(raw, t).index.tolist() == [[4, 3]]  # expert 0 is not among the four heaviest
    assert channel(raw, t).weight[0].tolist() == pytest.approx([0.2 / 0.36, 0.16 / 0.36])
    assert channel(raw, t, candidates=3).index.tolist() == [[2, 4]]
    assert channel(raw, t, candidates=99).index.tolist() == [[3, 0]]


def test_channel_selects_the_heavier_of_equally_fast_experts_and_at_least_k() -> None:
    raw = logits(1)
    assert torch.equal(channel(raw, [1.0] * 8).index, topk(raw, 2).index)
    assert torch.equal(channel(raw, [*range(8)], candidates=1).index, topk(raw, 2).index)


def test_with_every_device_reachable_nothing_changes() -> None:
    raw = logits(1)
    chosen = topk(raw, 2)
    assert drop_unreachable(chosen, raw, torch.ones(8, dtype=torch.bool)) is chosen


def test_tokens_that_lose_no_expert_keep_their_weights_bit_for_bit() -> None:
    raw = logits(1, 500)
    chosen = topk(raw, 3)
    kept = drop_unreachable(chosen, raw, torch.tensor([True] * 7 + [False]))
    same = (chosen.index != 7).all(-1)
    assert 0 < int(same.sum()) < 500
    assert torch.equal(kept.weight[same], chosen.weight[same])


def test_the_kept_expert_takes_over_the_weight_of_the_lost_one() -> None:
    raw = torch.tensor([[2.0, 1.0, 0.0, -1.0]])
    kept = drop_unreachable(topk(raw, 2), raw, torch.tensor([True, False, True, True]))
    assert kept.index.tolist() == [[0, 4]]
    assert kept.weight.tolist() == [[1.0, 0.0]]


def test_a_token_that_loses_all_its_experts_gets_its_best_other() -> None:
    raw = torch.tensor([[2.0, 1.0, 0.0, -1.0]])
    kept = drop_unreachable(topk(raw, 2), raw, torch.tensor([False, False, True, True]))
    assert kept.index.tolist() == [[2, 4]]
    assert kept.candidates.tolist() == [[2, 1]]
    assert kept.weight.tolist() == [[1.0, 0.0]]


def test_an_expert_that_the_policy_dropped_comes_back_when_the_kept_one_is_out_of_reach() -> None:
    raw = torch.tensor([[2.0, 1.0, 0.0, -1.0]])
    chosen = find("top1", {}).select(Gate(raw, 2))
    kept = drop_unreachable(chosen, raw, torch.tensor([False, True, True, True]))
    assert kept.index.tolist() == [[4, 1]]
    assert kept.candidates.tolist() == [[0, 1]]
    assert kept.weight.tolist() == [[0.0, 1.0]]


def test_weights_of_three_experts_are_renormalised_over_the_two_kept() -> None:
    raw = torch.log(torch.tensor([[0.5, 0.3, 0.2]]))
    kept = drop_unreachable(topk(raw, 3), raw, torch.tensor([True, False, True]))
    assert kept.weight[0].tolist() == pytest.approx([0.5 / 0.7, 0.0, 0.2 / 0.7])
