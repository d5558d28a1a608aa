"""Which experts each token got, and on what grounds: a compressed .npz, a row a layer and token.

layer (r,) uint16       token (r,) uint32: its position in the sequence, from 0
expert (r, k) uint16    the candidates
weight (r, k) float32   their gate weights, which sum to 1 over a row
latency_s (r, k) float32   Eq. 6 of each candidate's device, as the policy's source has it
wlr (r, k) float32      Eq. 9, weight / latency_s
kept (r, k) bool        whether the candidate was used
"""

from __future__ import annotations

import io
from collections import Counter

import numpy as np
from numpy.typing import NDArray

from orchestrator.selection import weights
from services.bs.selector import Choice


class RoutingTrace:
    """Collects a request's choices; rows are in the order in which layers were computed."""

    def __init__(self) -> None:
        self._columns: dict[str, list[NDArray[np.generic]]] = {}
        self._tokens: Counter[int] = Counter()

    def add(self, layer: int, choice: Choice) -> None:
        """Record a layer's next n tokens."""
        first, n = self._tokens[layer], len(choice.logits)
        self._tokens[layer] += n
        weight = weights(choice.logits, choice.used.candidates).cpu().numpy()
        expert = choice.used.candidates.cpu().numpy()
        latency_s = choice.latency_s[expert]
        free = np.full(expert.shape, np.inf)  # of what takes no time, as nothing is shaped
        rows = {
            "layer": np.full(n, layer, np.uint16),
            "token": np.arange(first, first + n, dtype=np.uint32),
            "expert": expert.astype(np.uint16),
            "weight": weight,
            "latency_s": latency_s.astype(np.float32),
            "wlr": np.divide(weight, latency_s, where=latency_s > 0, out=free).astype(np.float32),
            "kept": (choice.used.index < len(choice.latency_s)).cpu().numpy(),
        }
        for name, values in rows.items():
            self._columns.setdefault(name, []).append(values)

    def npz(self) -> bytes:
        """The file."""
        file = io.BytesIO()
        columns = {name: np.concatenate(parts) for name, parts in self._columns.items()}
        np.savez_compressed(file, **columns)  # type: ignore[arg-type]  # numpy's stub: any keyword
        return file.getvalue()
