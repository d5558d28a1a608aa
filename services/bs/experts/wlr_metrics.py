"""The histograms of κ and WLR of every decision, under any policy.

They show what a θ would do, so they are computed for policies that do not use them, too. They are
needed at the next scrape: decisions are kept until then, and computed all at once.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import softmax

from orchestrator.metrics import BsMetrics
from orchestrator.moe.latency_model import Floats
from services.bs.batch.decision import RoutingDecision

# As many tokens are kept for a scrape at most, or twice as many with the choice that exceeds them;
# and as many choices: the engine's thread does not read answers meanwhile, and each is a cost too.
MAX_TOKENS = 4096
MAX_CHOICES = 128


class WlrMetrics:
    """The histograms' feed: decisions come from the engine's thread, scrapes from another."""

    def __init__(self, metrics: BsMetrics, layers: int) -> None:
        self._metrics = metrics
        self._kept: deque[tuple[int, RoutingDecision]] = deque()
        self._tokens = 0
        self._lock = threading.Lock()
        for layer in range(layers):
            metrics.kappa.observe(str(layer), ())
        for decision in ("kept", "dropped"):
            metrics.expert_wlr.observe(decision, ())
        metrics.kappa.before_collect = metrics.expert_wlr.before_collect = self.settle

    def add(self, layer: int, choice: RoutingDecision) -> None:
        """Keep a layer's decision; with too many kept, compute them now."""
        self._kept.append((layer, choice))
        self._tokens += len(choice.logits)
        if self._tokens > MAX_TOKENS or len(self._kept) > MAX_CHOICES:
            self.settle()

    def settle(self) -> None:
        """Bring the histograms up to date."""
        with self._lock:
            self._tokens = 0
            kept = [self._kept.popleft() for _ in range(len(self._kept))]
            if kept:
                self._observe([layer for layer, _ in kept], [choice for _, choice in kept])

    def _observe(self, layers: Iterable[int], choices: list[RoutingDecision]) -> None:
        """In NumPy: torch's smallest reductions wake another thread, and spin until it is there."""
        rows = [len(choice.logits) for choice in choices]
        candidates = _joined([choice.selected.candidates for choice in choices])
        dropped = _joined([choice.selected.index for choice in choices]) == len(
            choices[0].reachable
        )
        # Latencies change with the channel, and not with the layer: most choices share one object.
        grounds = {(id(choice.reachable), id(choice.latency_s)): choice for choice in choices}
        far = {key: _far(choice) for key, choice in grounds.items()}
        latencies = [far[id(choice.reachable), id(choice.latency_s)] for choice in choices]
        latency_s = np.take_along_axis(np.repeat(latencies, rows, axis=0), candidates, -1)
        logits = _joined([choice.logits.float() for choice in choices])
        logits = np.pad(logits, ((0, 0), (0, 1)), constant_values=-np.inf)
        weight = softmax(np.take_along_axis(logits, candidates, -1), axis=-1)
        kappa, wlr = wlr_of(weight, latency_s)
        layer_of = np.repeat(list(layers), rows)
        for layer in np.unique(layer_of).tolist():
            self._metrics.kappa.observe(str(layer), kappa[layer_of == layer])
        # Without latency there is no ratio, and an unreachable expert is no candidate.
        finite = (latency_s > 0) & np.isfinite(latency_s)
        for decision, mask in (("kept", ~dropped), ("dropped", dropped)):
            self._metrics.expert_wlr.observe(decision, wlr[mask & finite])


def wlr_of(weight: Floats, latency_s: Floats) -> tuple[Floats, Floats]:
    """Return κ (n,) and WLR (n × k) [1/s] of candidates: the NumPy twin of `policies.wlr`."""
    with np.errstate(divide="ignore", invalid="ignore"):
        wlr = np.nan_to_num(weight / latency_s, nan=0.0, posinf=np.inf)
        least, most = wlr.min(axis=-1), wlr.max(axis=-1)
        return np.nan_to_num(least / (least + most), nan=0.5), wlr


def _joined(parts: list[torch.Tensor]) -> NDArray[Any]:
    return np.concatenate([part.cpu().numpy() for part in parts])


def _far(choice: RoutingDecision) -> Floats:
    """t_q [s], shape (E + 1,): infinite for what cannot be reached, and for "none"."""
    return np.append(np.where(choice.reachable.numpy(), choice.latency_s, np.inf), np.inf)
