"""Divide a layer's tokens into clusters of similar size, one per expert.

First by direction (spherical k-means), then by the neurons that a token needs: a cluster keeps the
neurons with most of its energy, and tokens move to the cluster that keeps most of theirs.

    inputs (n, d) ──► clusters by direction ──► kept neurons ⇄ clusters by energy ──► labels (n,)
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

KMEANS_ROUNDS = 20
ENERGY_ROUNDS = 4
SINKHORN_ROUNDS = 10  # at each sharpness
SHARPNESSES = (5.0, 10.0, 20.0, 40.0)  # per standard deviation of the scores


def balanced(scores: Tensor) -> Tensor:
    """Return each token's cluster, (n,), from scores (n, clusters); clusters are of similar size.

    Sinkhorn: find cluster offsets that make a soft assignment even, repeat with sharper ones, and
    take the best cluster at the end.
    """
    scaled = scores / scores.std().clamp_min(1e-12)
    for sharpness in SHARPNESSES:
        lead = scaled - scaled.amax(dim=1, keepdim=True)
        soft = (sharpness * lead).exp()
        factor = torch.ones(scores.shape[1])
        for _ in range(SINKHORN_ROUNDS):
            by_token = (soft @ factor).clamp_min(1e-30).reciprocal()
            factor = (soft.T @ by_token).clamp_min(1e-30).reciprocal()
        scaled = scaled + factor.log() / sharpness
    return scaled.argmax(dim=1)


def by_direction(inputs: Tensor, clusters: int, generator: torch.Generator) -> Tensor:
    """Return the cluster of each token, (n,), by the direction of its input from the mean."""
    directions = F.normalize(inputs - inputs.mean(dim=0), dim=1)
    centres = directions[_far_apart(directions, clusters, generator)]
    labels = balanced(directions @ centres.T)
    for _ in range(KMEANS_ROUNDS):
        centres = F.normalize(_means(directions, labels, clusters), dim=1)
        labels = balanced(directions @ centres.T)
    return labels


def by_energy(energy: Tensor, labels: Tensor, clusters: int, kept: int) -> Tensor:
    """Return the clusters (n,) after moving tokens to the cluster that keeps most of their energy.

    Args:
        energy: each token's energy by neuron, (n, neurons); sums to 1 for each token.
        labels: the initial clusters.
        clusters: number of clusters.
        kept: number of neurons that each cluster keeps.
    """
    for _ in range(ENERGY_ROUNDS):
        neurons = _means(energy, labels, clusters).topk(kept, dim=1).indices
        mask = torch.zeros(clusters, energy.shape[1], dtype=energy.dtype).scatter(1, neurons, 1.0)
        labels = balanced((energy @ mask.T).float())
    return labels


def _means(values: Tensor, labels: Tensor, clusters: int) -> Tensor:
    member = F.one_hot(labels, clusters).to(values.dtype)
    sums = (member.T @ values).float()
    return sums / member.sum(dim=0, dtype=torch.float32).clamp_min(1)[:, None]


def _far_apart(directions: Tensor, clusters: int, generator: torch.Generator) -> Tensor:
    """Draw k-means++ centres: the farther a token is from those drawn, the likelier it is next."""
    drawn = torch.randint(len(directions), (1,), generator=generator)
    while len(drawn) < clusters:
        nearest = (directions @ directions[drawn].T).amax(dim=1)
        chosen = torch.multinomial((1 - nearest).clamp_min(1e-6), 1, generator=generator)
        drawn = torch.cat([drawn, chosen])
    return drawn
