"""One dense FFN made into experts, in closed form.

inputs ──► clusters ──► gate ──► which neurons each expert keeps ──► down-projections
           clusters.py  router.py         (overlapping)              ridge.py
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from models.smollm2 import clusters, ridge, router
from models.smollm2.ridge import Penalties
from models.smollm2.router import Routing

HEAVIEST = 4.0  # weight of a token, where the median token has 1


@dataclass(frozen=True)
class Tokens:
    """What a layer sees of the calibration texts, and what it should make of it.

    Attributes:
        inputs: to the FFN, (n, d).
        hidden: activations of its neurons, (n, neurons), bf16.
        target: what the dense FFN answers to these inputs, (n, d).
        drift: what would have to be added for the residual stream to be the dense model's, (n, d).
        weight: of each token, (n,).
    """

    inputs: Tensor
    hidden: Tensor
    target: Tensor
    drift: Tensor
    weight: Tensor

    def rows(self, part: slice) -> Tokens:
        """Some of the tokens."""
        values = (self.inputs, self.hidden, self.target, self.drift, self.weight)
        return Tokens(*(value[part] for value in values))


@dataclass(frozen=True)
class Carved:
    """A layer's gate (experts, d), kept neurons (experts, kept), down-projections of them
    (experts, kept, d), and how it does on tokens that decided nothing of it.
    """

    gate: Tensor
    neurons: Tensor
    down: Tensor
    measured: dict[str, float]


def carve(
    divided: Tokens,
    fitted: Tokens,
    tuned: Tokens,
    reported: Tokens,
    down: Tensor,
    experts: int,
    kept: int,
    penalties: Penalties,
    generator: torch.Generator,
) -> Carved:
    """Experts of `kept` neurons each for a dense FFN.

    Args:
        divided: tokens that the gate learns to divide, and by which experts keep neurons.
        fitted: tokens that the down-projections are fitted to.
        tuned: tokens that decide how much of the drift's correction is taken.
        reported: tokens on which the layer is measured.
        down: the dense down-projection, (neurons, d).
        experts: how many.
        kept: neurons of each.
        penalties: of the regression.
        generator: of the clusters.
    """
    energy = _energy(divided.hidden, down)
    labels = clusters.by_direction(divided.inputs, experts, generator)
    labels = clusters.by_energy(energy, labels, experts, kept)
    gate = router.fit(divided.inputs, labels, experts)
    neurons = _kept(energy, Routing.of(gate, divided.inputs), experts, kept)
    del energy
    routing = Routing.of(gate, fitted.inputs)
    targets = [fitted.target, fitted.drift]
    dense, drift = ridge.solve(
        fitted.hidden, routing, neurons, targets, fitted.weight, down, penalties
    )
    part = _drift_part(tuned, gate, neurons, dense, drift)
    carved = Carved(gate, neurons, (dense + part * drift).bfloat16().float(), {})
    measured = {
        "error": _error(reported, replace(carved, down=dense), reported.target),
        "drift_corrected": part,
        "stream_error": _error(reported, carved, reported.target + reported.drift),
        **_shares(carved, reported),
    }
    return replace(carved, measured=measured)


def answer(carved: Carved, inputs: Tensor, hidden: Tensor) -> Tensor:
    """What the carved layer answers to (n, d) inputs with these activations, (n, d)."""
    return ridge.answer(hidden, Routing.of(carved.gate, inputs), carved.neurons, carved.down)


def token_weights(energy: Tensor, reported: int) -> Tensor:
    """The weight of each token, (n,): an error matters relative to the stream's squares it is in.

    A text's first token has a stream hundreds of times as long as others from some layer on. The
    last `reported` tokens do not count in the median.
    """
    inverse = energy.clamp_min(1e-12).reciprocal()
    return (inverse / inverse[: len(inverse) - reported].median()).clamp_max(HEAVIEST)


def _energy(hidden: Tensor, down: Tensor) -> Tensor:
    """How much each neuron adds to a token's answer, as part of the token's sum: (n, neurons)."""
    energy: Tensor = (hidden * down.norm(dim=1).to(hidden.dtype)).square()
    return energy / energy.sum(dim=1, keepdim=True).clamp_min(1e-12)


def _kept(energy: Tensor, routing: Routing, experts: int, kept: int) -> Tensor:
    """The neurons that carry most on the tokens routed to each expert, in rising order."""
    weighed = routing.dense(experts).to(energy.dtype).T @ energy
    return weighed.float().topk(kept, dim=1).indices.sort(dim=1).values


def _drift_part(
    tuned: Tokens, gate: Tensor, neurons: Tensor, dense: Tensor, drift: Tensor
) -> float:
    """How much of the drift's down-projections the tokens call for, 0 to 1."""
    routing = Routing.of(gate, tuned.inputs)
    said = ridge.answer(tuned.hidden, routing, neurons, dense)
    corrected = ridge.answer(tuned.hidden, routing, neurons, drift)
    weight = tuned.weight[:, None]
    wanted = tuned.target + tuned.drift
    gain = (weight * corrected * (wanted - said)).sum() / (weight * corrected.square()).sum()
    return float(gain.nan_to_num().clamp(0, 1))


def _error(tokens: Tokens, carved: Carved, target: Tensor) -> float:
    """Squared error of the answers, relative to the target's squares."""
    said = answer(carved, tokens.inputs, tokens.hidden)
    weight = tokens.weight[:, None]
    return float((weight * (said - target).square()).sum() / (weight * target.square()).sum())


def _shares(carved: Carved, tokens: Tokens) -> dict[str, float]:
    share = Routing.of(carved.gate, tokens.inputs).share(len(carved.neurons))
    return {"least_used": float(share.min()), "most_used": float(share.max())}
