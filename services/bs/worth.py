"""What each token's candidates are worth: κ and WLR of every choice, under whatever policy.

They tell what a θ would do, so they are computed for policies that do without them too. Nobody
needs them before the next scrape: choices are kept until then, and computed all at once.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable

import numpy as np
import torch

from orchestrator.latency import Floats
from orchestrator.metrics import BsMetrics
from orchestrator.selection import weights
from orchestrator.selection.wlr import kappas, ratios
from services.bs.selector import Choice

# As many tokens are kept for a scrape at most, or twice as many with the choice that exceeds them.
MAX_TOKENS = 4096


class Worth:
    """Choices come from the engine's thread, scrapes from another."""

    def __init__(self, metrics: BsMetrics, layers: int) -> None:
        self._metrics = metrics
        self._kept: deque[tuple[int, Choice]] = deque()
        self._tokens = 0
        self._lock = threading.Lock()
        for layer in range(layers):
            metrics.kappa.observe(str(layer), ())
        for decision in ("kept", "dropped"):
            metrics.expert_wlr.observe(decision, ())
        metrics.kappa.before_collect = metrics.expert_wlr.before_collect = self.settle

    def add(self, layer: int, choice: Choice) -> None:
        """Keep a layer's choice; if that makes too many, what was kept is computed now."""
        self._kept.append((layer, choice))
        self._tokens += len(choice.logits)
        if self._tokens > MAX_TOKENS:
            self.settle()

    def settle(self) -> None:
        """Bring the histograms up to date."""
        with self._lock:
            self._tokens = 0
            kept = [self._kept.popleft() for _ in range(len(self._kept))]
            if kept:
                self._observe([layer for layer, _ in kept], [choice for _, choice in kept])

    def _observe(self, layers: Iterable[int], choices: list[Choice]) -> None:
        candidates = torch.cat([choice.selected.candidates for choice in choices])
        index = torch.cat([choice.selected.index for choice in choices])
        weight = weights(torch.cat([choice.logits for choice in choices]), candidates)
        rows = [len(choice.logits) for choice in choices]
        latency_s = torch.from_numpy(np.repeat([_far(choice) for choice in choices], rows, axis=0))
        latency_s = latency_s.to(weight.device).gather(-1, candidates)
        wlr = ratios(weight, latency_s)
        kappa = kappas(wlr).amin(dim=-1).cpu().numpy()
        layer_of = np.repeat(list(layers), rows)
        for layer in np.unique(layer_of).tolist():
            self._metrics.kappa.observe(str(layer), kappa[layer_of == layer])
        dropped = index == choices[0].logits.shape[-1]
        # Nothing is weighed against no latency at all, and what is out of reach is no choice.
        finite = (latency_s > 0) & latency_s.isfinite()
        for decision, which in (("kept", ~dropped), ("dropped", dropped)):
            self._metrics.expert_wlr.observe(decision, wlr[which & finite].cpu().numpy())


def _far(choice: Choice) -> Floats:
    """t_q [s], shape (E + 1,): infinite for what cannot be reached, and for "none"."""
    return np.append(np.where(choice.reachable.numpy(), choice.latency_s, np.inf), np.inf)
