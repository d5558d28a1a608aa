"""Fit the down-projections of all experts of a layer in one ridge regression.

Expert q keeps neurons S_q, so its output is h[S_q] D_q. With c a token's weight, w_q its routing
weights and y the layer's target, the D_q minimise the sum over tokens of

    (1 - ρ) c ‖y - Σ_q w_q h[S_q] D_q‖²       both experts contribute
  + ρ       c ‖y - h[S_1] D_1‖²               the second is dropped
  + γ       c Σ_{q not chosen} ‖h[S_q] D_q‖²  an unchosen expert's output is small
  + α · (each feature's energy) · ‖D_q - the dense matrix's rows S_q‖²

The normal equations consist of blocks (q, p), over the tokens that go to both q and p:

    diagonal (q, q)      γ · all tokens  +  tokens routed to q, by (1-ρ)w² + ρ[first] - γ
    off-diagonal (q, p)  tokens routed to q and p, by (1-ρ) w_q w_p
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from models.smollm2.router import Routing

CHUNK = 8192  # tokens per product; products are bf16, their sums fp32


@dataclass(frozen=True)
class Penalties:
    """ρ, γ and α above."""

    top1: float = 0.1
    unchosen: float = 0.003
    shrink: float = 0.3


def solve(
    hidden: Tensor,
    routing: Routing,
    neurons: Tensor,
    targets: list[Tensor],
    weight: Tensor,
    down: Tensor,
    penalties: Penalties,
) -> list[Tensor]:
    """Return the experts' down-projections, (experts, kept, d), for each target.

    The first target is shrunk towards the dense matrix, the others towards zero.

    Args:
        hidden: activations of the dense FFN's neurons, (n, neurons), bf16.
        routing: each token's experts.
        neurons: numbers of the neurons that each expert keeps, (experts, kept).
        targets: desired outputs of the layer, (n, d) each.
        weight: weight of each token, (n,).
        down: the dense down-projection, (neurons, d).
        penalties: penalties of the regression.
    """
    gram, right = _normal_equations(hidden, routing, neurons, targets, weight, penalties)
    prior = down[neurons.flatten()]
    right[0] -= gram @ prior
    scale = gram.diagonal().clamp_min(1e-12).rsqrt()
    gram *= scale[:, None]
    gram *= scale
    gram.diagonal().add_(penalties.shrink)
    factor = torch.linalg.cholesky(gram)
    del gram
    both = torch.cholesky_solve(scale[:, None] * torch.cat(right, dim=1), factor)
    solutions = list((scale[:, None] * both).chunk(len(targets), dim=1))
    solutions[0] = solutions[0] + prior
    return [solution.contiguous().view(*neurons.shape, -1) for solution in solutions]


def answer(hidden: Tensor, routing: Routing, neurons: Tensor, down: Tensor) -> Tensor:
    """Return the layer's output, (n, d), with down-projections (experts, kept, d)."""
    result = torch.zeros(len(hidden), down.shape[2])
    for q in range(len(neurons)):
        tokens, slot = (routing.expert == q).nonzero(as_tuple=True)
        features = hidden[tokens][:, neurons[q]]
        output = (features @ down[q].to(features.dtype)).float()
        result.index_add_(0, tokens, output * routing.weight[tokens, slot, None])
    return result


def _normal_equations(
    hidden: Tensor,
    routing: Routing,
    neurons: Tensor,
    targets: list[Tensor],
    weight: Tensor,
    penalties: Penalties,
) -> tuple[Tensor, list[Tensor]]:
    experts, kept = neurons.shape
    share = routing.dense(experts)  # (n, experts)
    first = torch.zeros_like(share).scatter(1, routing.expert[:, :1], 1.0)
    gram = torch.zeros(experts * kept, experts * kept)
    right = [torch.zeros(experts * kept, target.shape[1]) for target in targets]
    everywhere = _product(hidden, hidden, weight * penalties.unchosen)
    for q in range(experts):
        rows = slice(q * kept, (q + 1) * kept)
        tokens = share[:, q].nonzero(as_tuple=True)[0]
        features_q = hidden[tokens][:, neurons[q]]
        both = (1 - penalties.top1) * share[tokens, q]
        alone = penalties.top1 * first[tokens, q]
        diagonal = both * share[tokens, q] + alone - penalties.unchosen
        gram[rows, rows] = everywhere[neurons[q]][:, neurons[q]]
        gram[rows, rows] += _product(features_q, features_q, weight[tokens] * diagonal)
        for at, target in enumerate(targets):
            right[at][rows] = _product(
                features_q, target[tokens].to(hidden.dtype), weight[tokens] * (both + alone)
            )
        for p in range(q + 1, experts):
            columns = slice(p * kept, (p + 1) * kept)
            shared = share[tokens, p].nonzero(as_tuple=True)[0]
            features_p = hidden[tokens[shared]][:, neurons[p]]
            by = weight[tokens[shared]] * both[shared] * share[tokens[shared], p]
            gram[rows, columns] = _product(features_q[shared], features_p, by)
            gram[columns, rows] = gram[rows, columns].T
    return gram, right


def _product(left: Tensor, right: Tensor, weight: Tensor) -> Tensor:
    """Return leftᵀ · diag(weight) · right, summed in fp32."""
    total = torch.zeros(left.shape[1], right.shape[1])
    for start in range(0, len(left), CHUNK):
        part = slice(start, start + CHUNK)
        scaled = (left[part] * weight[part, None]).to(left.dtype)
        total += (scaled.T @ right[part]).float()
    return total
