"""The experts of each token, and why: a compressed .npz with a row for each layer and token.

layer (r,) uint16       token (r,) uint32: its position in the sequence, from 0
expert (r, k) uint16    the candidates
weight (r, k) float32   their gate weights, which sum to 1 over a row
latency_s (r, k) float32   Eq. 6 of each candidate's device, from the policy's latency source
wlr (r, k) float32      Eq. 9, weight / latency_s
kept (r, k) bool        whether the candidate was used
"""

from __future__ import annotations

import io
from collections import Counter
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from orchestrator.selection import weights
from orchestrator.selection.policies.wlr import ratios
from services.bs.batch.decision import RoutingDecision


class RoutingTrace:
    """A recorder of a request's choices; rows are in the order in which layers were computed."""

    def __init__(self) -> None:
        self._columns: dict[str, list[NDArray[Any]]] = {}
        self._tokens: Counter[int] = Counter()

    def add(self, layer: int, choice: RoutingDecision, rows: slice) -> None:
        """Record a layer's next n tokens: the request's `rows` of a choice."""
        logits, expert = choice.logits[rows], choice.used.candidates[rows]
        first, n = self._tokens[layer], len(logits)
        self._tokens[layer] += n
        weight = weights(logits, expert)
        latency_s = torch.from_numpy(choice.latency_s).to(expert.device)[expert]
        columns: dict[str, NDArray[Any]] = {
            "layer": np.full(n, layer, np.uint16),
            "token": np.arange(first, first + n, dtype=np.uint32),
            "expert": expert.cpu().numpy().astype(np.uint16),
            "weight": weight.cpu().numpy(),
            "latency_s": latency_s.float().cpu().numpy(),
            "wlr": ratios(weight, latency_s).float().cpu().numpy(),
            "kept": (choice.used.index[rows] < len(choice.latency_s)).cpu().numpy(),
        }
        for name, values in columns.items():
            self._columns.setdefault(name, []).append(values)

    def npz(self) -> bytes:
        """Return the file's bytes."""
        file = io.BytesIO()
        columns = {name: np.concatenate(parts) for name, parts in self._columns.items()}
        np.savez_compressed(file, **columns)  # type: ignore[arg-type]  # numpy's stub: any keyword
        return file.getvalue()
