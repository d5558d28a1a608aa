"""Fit a layer's gate: a linear map of the FFN input whose two largest logits select the experts.

Mixtral's gate has no bias, so the balancing offsets are applied along the inputs' mean direction.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

ITERATIONS = 80
DECAY = 1e-4
TOP_WEIGHT = 0.65  # mean weight of a token's first expert; the second has the rest
BALANCE_ROUNDS = 30
BALANCE_STEP = 0.3


@dataclass(frozen=True)
class Routing:
    """Each token's two experts, the likelier first, and their weights: (n, 2) each."""

    expert: Tensor
    weight: Tensor

    @classmethod
    def of(cls, gate: Tensor, inputs: Tensor) -> Routing:
        """Return Mixtral's routing of (n, d) inputs with an (experts, d) gate."""
        top, expert = (inputs @ gate.T).topk(2, dim=1)
        return cls(expert, top.softmax(dim=1))

    def dense(self, experts: int) -> Tensor:
        """Return (n, experts) weights, zero for experts that a token is not routed to."""
        return torch.zeros(len(self.expert), experts).scatter(1, self.expert, self.weight)

    def share(self, experts: int) -> Tensor:
        """Return each expert's fraction of all choices."""
        return torch.bincount(self.expert.flatten(), minlength=experts) / self.expert.numel()


def fit(inputs: Tensor, labels: Tensor, experts: int) -> Tensor:
    """Return the gate (experts, d), rounded to bf16, that routes (n, d) inputs to clusters (n,)."""
    gate = _regress(inputs, labels, experts)
    gate = gate - gate.mean(dim=0)
    gate = _balance(_sharpen(gate, inputs), inputs)
    return gate.bfloat16().float()


def _regress(inputs: Tensor, labels: Tensor, experts: int) -> Tensor:
    """Fit a multinomial logistic regression on inputs scaled to unit variance."""
    spread = inputs.std(dim=0).clamp_min(1e-6)
    scaled = inputs / spread
    weight = torch.zeros(experts, inputs.shape[1], requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [weight], max_iter=ITERATIONS, history_size=20, line_search_fn="strong_wolfe"
    )

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = F.cross_entropy(scaled @ weight.T, labels) + DECAY * weight.square().sum()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    with torch.enable_grad():
        optimizer.step(loss)  # type: ignore[no-untyped-call]
    return weight.detach() / spread


def _sharpen(gate: Tensor, inputs: Tensor) -> Tensor:
    """Scale the gate so that the first expert's mean weight is TOP_WEIGHT."""
    top = (inputs @ gate.T).topk(2, dim=1).values
    lead = top[:, 0] - top[:, 1]
    low, high = 0.0, 1000.0 / float(lead.mean().clamp_min(1e-9))
    for _ in range(60):
        scale = (low + high) / 2
        if float(torch.sigmoid(scale * lead).mean()) < TOP_WEIGHT:
            low = scale
        else:
            high = scale
    return gate * scale


def _balance(gate: Tensor, inputs: Tensor) -> Tensor:
    """Shift the experts' offsets until each gets a similar share of the choices."""
    experts = len(gate)
    mean = inputs.mean(dim=0)
    direction = mean / mean.square().sum().clamp_min(1e-12)
    for _ in range(BALANCE_ROUNDS):
        share = Routing.of(gate, inputs).share(experts)
        gate = gate - BALANCE_STEP * (share * experts).clamp_min(0.01).log()[:, None] * direction
    return gate
