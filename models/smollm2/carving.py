"""Convert one dense FFN into experts, in closed form.

inputs ──► clusters ──► gate ──► neurons that each expert keeps  ──► down-projections
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
    """A layer's calibration tokens: its inputs, and the outputs that it should produce.

    Attributes:
        inputs: inputs of the FFN, (n, d).
        hidden: activations of its neurons, (n, neurons), bf16.
        target: output of the dense FFN for these inputs, (n, d).
        drift: correction that would restore the dense model's residual stream, (n, d).
        weight: weight of each token, (n,).
    """

    inputs: Tensor
    hidden: Tensor
    target: Tensor
    drift: Tensor
    weight: Tensor

    def rows(self, part: slice) -> Tokens:
        """Return a slice of the tokens."""
        values = (self.inputs, self.hidden, self.target, self.drift, self.weight)
        return Tokens(*(value[part] for value in values))


@dataclass(frozen=True)
class Carved:
    """A layer's gate (experts, d), kept neurons (experts, kept) and their down-projections
    (experts, kept, d), and its errors on held-out tokens.
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
    """Convert a dense FFN into experts of `kept` neurons each.

    Args:
        divided: tokens that the gate is fitted to and the neurons are selected by.
        fitted: tokens that the down-projections are fitted to.
        tuned: tokens that determine how much of the drift's correction is applied.
        reported: tokens on which the layer is measured.
        down: the dense down-projection, (neurons, d).
        experts: number of experts.
        kept: neurons per expert.
        penalties: penalties of the regression.
        generator: random generator of the clusters.
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
    """Return the carved layer's output (n, d) for inputs (n, d) with these activations."""
    return ridge.answer(hidden, Routing.of(carved.gate, inputs), carved.neurons, carved.down)


def token_weights(energy: Tensor, reported: int) -> Tensor:
    """Return the weight of each token, (n,): the inverse of its stream's squared norm.

    Errors matter relative to the stream: from some layer on, the stream of a text's first token is
    hundreds of times as long as others. The median token has weight 1, and HEAVIEST is the limit;
    the last `reported` tokens do not count in the median.
    """
    inverse = energy.clamp_min(1e-12).reciprocal()
    return (inverse / inverse[: len(inverse) - reported].median()).clamp_max(HEAVIEST)


def _energy(hidden: Tensor, down: Tensor) -> Tensor:
    """Return each neuron's share of the energy in a token's output, (n, neurons)."""
    energy: Tensor = (hidden * down.norm(dim=1).to(hidden.dtype)).square()
    return energy / energy.sum(dim=1, keepdim=True).clamp_min(1e-12)


def _kept(energy: Tensor, routing: Routing, experts: int, kept: int) -> Tensor:
    """Return the neurons with most energy on the tokens of each expert, in ascending order."""
    weighed = routing.dense(experts).to(energy.dtype).T @ energy
    return weighed.float().topk(kept, dim=1).indices.sort(dim=1).values


def _drift_part(
    tuned: Tokens, gate: Tensor, neurons: Tensor, dense: Tensor, drift: Tensor
) -> float:
    """Return the best factor of the drift's down-projections on these tokens, 0 to 1."""
    routing = Routing.of(gate, tuned.inputs)
    output = ridge.answer(tuned.hidden, routing, neurons, dense)
    corrected = ridge.answer(tuned.hidden, routing, neurons, drift)
    weight = tuned.weight[:, None]
    wanted = tuned.target + tuned.drift
    gain = (weight * corrected * (wanted - output)).sum() / (weight * corrected.square()).sum()
    return float(gain.nan_to_num().clamp(0, 1))


def _error(tokens: Tokens, carved: Carved, target: Tensor) -> float:
    """Return the squared error of the outputs, relative to the target's squares."""
    output = answer(carved, tokens.inputs, tokens.hidden)
    weight = tokens.weight[:, None]
    return float((weight * (output - target).square()).sum() / (weight * target.square()).sum())


def _shares(carved: Carved, tokens: Tokens) -> dict[str, float]:
    share = Routing.of(carved.gate, tokens.inputs).share(len(carved.neurons))
    return {"least_used": float(share.min()), "most_used": float(share.max())}
