"""WLR compared with Algorithm 1 token by token, and its properties."""

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.selection import Gate, Selection, find
from orchestrator.selection.policies.topk import TopK, heaviest
from orchestrator.selection.policies.wlr import kappas, ratios

pytestmark = pytest.mark.slow


def algorithm_1(
    w: list[float], t: list[float], k: int, theta: float, strict: bool, max_drops: int
) -> dict[int, float]:
    """Return the kept experts' weights of one token with gate weights w and latencies t."""
    kept = sorted(range(len(w)), key=lambda q: -w[q])[:k]
    wlr = {q: w[q] / t[q] if t[q] > 0 else math.inf for q in kept}
    for _ in range(max_drops):
        if len(kept) == 1:
            break
        least, most = min(wlr[q] for q in kept), max(wlr[q] for q in kept)
        alike = least == most and least in (0, math.inf)
        kappa = 0.5 if alike else least / (least + most)
        if kappa > theta or (strict and kappa == theta):
            break
        kept.remove([q for q in kept if wlr[q] == least][-1])
    return {q: w[q] / sum(w[q] for q in kept) for q in kept}


@pytest.mark.parametrize(
    ("k", "strict", "max_drops"), [*itertools.product([2, 3, 4], [False, True], [1, 2, 3])]
)
def test_wlr_equals_algorithm_1(k: int, strict: bool, max_drops: int) -> None:
    generator = torch.Generator().manual_seed(100 * k + 10 * strict + max_drops)
    drops = []
    for case in range(200):
        experts = (4, 5, 8, 16)[case % 4]
        theta = (0.0, 0.5, *torch.rand(3, generator=generator).div(2).tolist())[case % 5]
        raw = 2 * torch.randn(50, experts, generator=generator)
        t = torch.randn(experts, generator=generator, dtype=torch.float64).exp() / 1000
        t[torch.rand(experts, generator=generator) < 0.1] = math.inf  # in outage
        t[torch.rand(experts, generator=generator) < 0.1] = 0.0  # not shaped
        policy = find("wlr", {"theta": theta, "strict": strict, "max_drops": max_drops})
        chosen = policy.select(Gate(raw, k, t))
        gate_weights = raw.softmax(-1).tolist()
        for w, index, weight in zip(
            gate_weights, chosen.index.tolist(), chosen.weight.tolist(), strict=True
        ):
            expected = algorithm_1(w, t.tolist(), k, theta, strict, max_drops)
            got = {q: share for q, share in zip(index, weight, strict=True) if q < experts}
            assert got == pytest.approx(expected, abs=1e-6)
            drops.append(k - len(got))
    assert len(drops) == 10_000
    assert set(drops) == set(range(min(max_drops, k - 1) + 1))  # every number of drops occurred


thetas = st.floats(0, 0.5)
options = st.fixed_dictionaries({"strict": st.booleans(), "max_drops": st.integers(1, 4)})


@st.composite
def gates(draw: st.DrawFn, least_s: float = 0.0) -> Gate:
    """Draw twenty tokens; latencies from `least_s`, none in outage."""
    t = draw(st.lists(st.floats(1e-6, 1e3) | st.just(least_s), min_size=4, max_size=12))
    t = [max(least_s, value) for value in t]
    generator = torch.Generator().manual_seed(draw(st.integers(0, 10_000)))
    raw = 2 * torch.randn(20, len(t), generator=generator)
    return Gate(raw, draw(st.integers(1, 4)), torch.tensor(t, dtype=torch.float64))


def select(gate: Gate, theta: float, options: dict[str, object]) -> Selection:
    return find("wlr", {"theta": theta, **options}).select(gate)


@given(gates(least_s=1e-6), options)
def test_theta_0_is_the_model_as_published_bit_for_bit(
    gate: Gate, options: dict[str, object]
) -> None:
    published = TopK().select(gate)
    chosen = select(gate, 0.0, options)
    assert torch.equal(chosen.index, published.index)
    assert torch.equal(chosen.weight, published.weight)


@given(gates(), st.tuples(thetas, thetas).map(sorted), options)
def test_a_larger_theta_keeps_no_expert_that_a_smaller_one_drops(
    gate: Gate, pair: list[float], options: dict[str, object]
) -> None:
    smaller, larger = (select(gate, theta, options) for theta in pair)
    kept = larger.index < gate.logits.shape[-1]
    assert torch.equal(larger.index[kept], smaller.index[kept])


@given(gates(), thetas, options, st.integers(-40, 40))
def test_only_the_ratios_of_latencies_matter(
    gate: Gate, theta: float, options: dict[str, object], power: int
) -> None:
    assert gate.latency_s is not None
    scaled = Gate(gate.logits, gate.k, gate.latency_s * 2.0**power)
    original, other = select(gate, theta, options), select(scaled, theta, options)
    assert torch.equal(original.index, other.index)
    assert torch.equal(original.weight, other.weight)


@given(gates(), thetas, options)
def test_tokens_that_lose_no_expert_are_as_published_bit_for_bit(
    gate: Gate, theta: float, options: dict[str, object]
) -> None:
    published, chosen = TopK().select(gate), select(gate, theta, options)
    whole = (chosen.index < gate.logits.shape[-1]).all(-1)
    assert torch.equal(chosen.weight[whole], published.weight[whole])
    assert torch.equal(chosen.candidates, published.index)


def one_token(w: list[float], t: list[float], theta: float, **options: object) -> Selection:
    gate = Gate(torch.log(torch.tensor([w])), 2, torch.tensor(t, dtype=torch.float64))
    return select(gate, theta, options)


def kappa(w: list[float], t: list[float]) -> float:
    """Return κ of a token with these gate weights and latencies and two candidates."""
    latency_s = torch.tensor(t, dtype=torch.float64)
    weight, candidates = heaviest(Gate(torch.log(torch.tensor([w])), 2))
    return float(kappas(ratios(weight, latency_s.take(candidates))).amin())


def test_kappa_is_eq_10() -> None:
    found = kappa([0.6, 0.3, 0.1], [0.003, 0.001, 0.0])
    assert found == pytest.approx(200 / (200 + 300), rel=1e-6)


def test_at_kappa_itself_only_strict_keeps_the_expert() -> None:
    w, t = [0.6, 0.3, 0.1], [0.001, 0.002, 0.0]
    theta = kappa(w, t)
    assert one_token(w, t, theta).index.tolist() == [[0, 3]]
    assert one_token(w, t, theta, strict=True).index.tolist() == [[0, 1]]


@pytest.mark.parametrize(
    ("t", "theta", "kept"),
    [
        ([math.inf, 1.0], 0.0, [2, 1]),  # in outage: dropped
        ([math.inf, math.inf], 0.4, [0, 1]),  # all in outage: nothing to choose between
        ([math.inf, math.inf], 0.5, [0, 2]),  # … and among equals the lighter is dropped
        ([0.0, 0.0], 0.4, [0, 1]),  # nothing is shaped: the same
        ([0.0, 0.0], 0.5, [0, 2]),
        ([1.0, 0.0], 0.0, [2, 1]),  # any latency is infinitely more than none
    ],
)
def test_zero_and_infinite_latencies(t: list[float], theta: float, kept: list[int]) -> None:
    chosen = one_token([0.6, 0.4], t, theta)
    assert chosen.index.tolist() == [kept]
    assert chosen.weight.sum() == 1.0


def test_dropping_an_expert_without_weight_changes_no_bit() -> None:
    logits = torch.randn(1000, 3, generator=torch.Generator().manual_seed(4))
    logits[:, 2] = -200.0
    gate = Gate(logits, 3, torch.ones(3))
    chosen = select(gate, 0.0, {})
    assert (chosen.index[:, 2] == 3).all()
    assert torch.equal(chosen.weight, TopK().select(gate).weight)


def test_an_expert_without_weight_has_ratio_0_at_any_latency() -> None:
    weight = torch.tensor([1.0, 0.0, 0.0])
    wlr = ratios(weight, torch.tensor([2.0, 0.0, math.inf], dtype=torch.float64))
    assert wlr.tolist() == [0.5, 0.0, 0.0]
    assert one_token([1.0, 0.0], [5.0, 0.0], 0.5).weight.tolist() == [[1.0, 0.0]]
