"""Carving divides an FFN into evenly used experts, each best on the tokens routed to it."""

from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from models.smollm2 import carving, clusters, ridge, router
from models.smollm2.carving import Tokens
from models.smollm2.ridge import Penalties
from models.smollm2.router import Routing

EXPERTS, KEPT = 4, 20
WIDTH, NEURONS = 12, 32
TOKENS, HELD_OUT = 1500, 300


@dataclass(frozen=True)
class Layer:
    """A random dense FFN on clustered inputs."""

    fitted: Tokens
    held_out: Tokens
    down: Tensor


@pytest.fixture(scope="module")
def layer() -> Layer:
    torch.manual_seed(0)
    groups = 2 * torch.randn(6, WIDTH)
    inputs = groups[torch.randint(6, (TOKENS,))] + torch.randn(TOKENS, WIDTH)
    gate, up = torch.randn(2, NEURONS, WIDTH)
    down = torch.randn(NEURONS, WIDTH)
    hidden = (F.silu(inputs @ gate.T) * (inputs @ up.T)).bfloat16()
    tokens = Tokens(
        inputs,
        hidden,
        hidden.float() @ down,
        torch.zeros(TOKENS, WIDTH),
        torch.rand(TOKENS) + 0.5,
    )
    return Layer(tokens.rows(slice(HELD_OUT, None)), tokens.rows(slice(HELD_OUT)), down)


def carve(layer: Layer, penalties: Penalties, kept: int = KEPT) -> carving.Carved:
    generator = torch.Generator().manual_seed(1)
    return carving.carve(
        layer.fitted,
        layer.fitted,
        layer.held_out,
        layer.held_out,
        layer.down,
        EXPERTS,
        kept,
        penalties,
        generator,
    )


def error(layer: Layer, carved: carving.Carved, routing: Routing) -> float:
    output = ridge.answer(layer.held_out.hidden, routing, carved.neurons, carved.down)
    wanted = layer.held_out.target
    return float((output - wanted).square().sum() / wanted.square().sum())


def random_two(count: int) -> Routing:
    expert = torch.rand(count, EXPERTS).topk(2, dim=1).indices
    return Routing(expert, torch.full((count, 2), 0.5))


@settings(max_examples=20)
@given(seed=st.integers(0, 1000), bias=st.floats(0, 3))
def test_clusters_are_of_similar_size_even_with_biased_scores(seed: int, bias: float) -> None:
    scores = torch.randn(800, 5, generator=torch.Generator().manual_seed(seed))
    scores[:, 0] += bias
    sizes = torch.bincount(clusters.balanced(scores), minlength=5)
    assert sizes.min() > 100
    assert sizes.max() < 230


def test_a_gate_uses_experts_evenly_with_the_intended_first_weight(layer: Layer) -> None:
    generator = torch.Generator().manual_seed(1)
    labels = clusters.by_direction(layer.fitted.inputs, EXPERTS, generator)
    routing = Routing.of(router.fit(layer.fitted.inputs, labels, EXPERTS), layer.fitted.inputs)
    assert routing.share(EXPERTS).min() > 0.2
    assert routing.share(EXPERTS).max() < 0.3
    assert float(routing.weight[:, 0].mean()) == pytest.approx(router.TOP_WEIGHT, abs=0.05)
    assert float((routing.expert[:, 0] == labels).float().mean()) > 0.5


def test_down_projections_minimise_the_loss(layer: Layer) -> None:
    """At the minimum the gradient of the loss, written out token by token, is zero."""
    penalties = Penalties(top1=0.2, unchosen=0.3, shrink=0.1)
    tokens = layer.fitted
    generator = torch.Generator().manual_seed(2)
    neurons = torch.stack(
        [torch.randperm(NEURONS, generator=generator)[:KEPT] for _ in range(EXPERTS)]
    )
    routing = random_two(len(tokens.inputs))
    hidden = tokens.hidden.float()  # exact products allow an exact gradient
    (down,) = ridge.solve(
        hidden, routing, neurons, [tokens.target], tokens.weight, layer.down, penalties
    )

    solved = down.double().requires_grad_()
    outputs = torch.stack(
        [hidden.double()[:, neurons[q]] @ solved[q] for q in range(EXPERTS)], dim=1
    )
    share = routing.dense(EXPERTS).double()
    rows = torch.arange(len(outputs))
    both = (share[:, :, None] * outputs).sum(dim=1) - tokens.target
    alone = outputs[rows, routing.expert[:, 0]] - tokens.target
    unchosen = outputs[share == 0].square().sum(dim=1).view(len(outputs), -1).sum(dim=1)
    by_token = (
        (1 - penalties.top1) * both.square().sum(dim=1)
        + penalties.top1 * alone.square().sum(dim=1)
        + penalties.unchosen * unchosen
    )
    first = F.one_hot(routing.expert[:, 0], EXPERTS)
    weight = (
        (1 - penalties.top1) * share.square()
        + penalties.top1 * first
        + penalties.unchosen * (share == 0)
    ) * tokens.weight[:, None]
    energy = torch.stack(
        [weight[:, q] @ hidden.double()[:, neurons[q]].square() for q in range(EXPERTS)]
    )
    shrunk = (energy[..., None] * (solved - layer.down[neurons]).square()).sum()
    loss = (tokens.weight * by_token).sum() + penalties.shrink * shrunk
    (gradient,) = torch.autograd.grad(loss, solved)
    (at_prior,) = torch.autograd.grad(
        (tokens.weight[:, None] * tokens.target.double()).sum() * solved.sum() * 0
        + (energy[..., None] * solved.square()).sum(),
        solved,
    )
    assert gradient.norm() < 1e-3 * at_prior.norm()


def test_experts_with_all_neurons_reproduce_the_dense_layer(layer: Layer) -> None:
    carved = carve(layer, Penalties(unchosen=0.0), kept=NEURONS)
    assert carved.measured["error"] < 1e-3


def test_the_right_experts_answer_best_and_the_first_alone_still_well(layer: Layer) -> None:
    carved = carve(layer, Penalties())
    right = Routing.of(carved.gate, layer.held_out.inputs)
    alone = Routing(right.expert[:, :1], torch.ones(HELD_OUT, 1))
    wrong = error(layer, carved, random_two(HELD_OUT))
    assert error(layer, carved, right) < error(layer, carved, alone) < 0.7 * wrong


def test_a_penalty_on_the_unchosen_makes_expert_choice_matter_more(layer: Layer) -> None:
    """Wrong experts then cost more, relative to the right ones."""
    costs = []
    for unchosen in (0.0, 0.3):
        carved = carve(layer, Penalties(unchosen=unchosen))
        right = Routing.of(carved.gate, layer.held_out.inputs)
        torch.manual_seed(3)
        costs.append(error(layer, carved, random_two(HELD_OUT)) - error(layer, carved, right))
    assert costs[1] > costs[0]
