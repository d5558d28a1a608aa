"""Expert q of every layer: the only weights that a device holds."""

from __future__ import annotations

import torch
from torch.nn.functional import linear, silu

from orchestrator.moe.checkpoint import Checkpoint


class Experts:
    """The SwiGLU experts of one device.

    expert(x) = down · (silu(gate · x) ⊙ (up · x))      gate, up: m_h × m    down: m × m_h
    """

    def __init__(
        self, checkpoint: Checkpoint, q: int, device: torch.device, dtype: torch.dtype
    ) -> None:
        """Read expert `q` of every layer, and nothing else, from the checkpoint."""
        self._device, self._dtype = device, dtype
        self._weights = [
            tuple(tensor.to(device, dtype) for tensor in checkpoint.expert(layer, q))
            for layer in range(checkpoint.info.layers)
        ]

    @property
    def weight_bytes(self) -> int:
        """Memory that the weights take [byte]."""
        return sum(tensor.nbytes for layer in self._weights for tensor in layer)

    @torch.inference_mode()
    def __call__(self, layer: int, x: torch.Tensor) -> torch.Tensor:
        """Return outputs (n × m) for a layer's inputs (n × m); IndexError for an unknown layer."""
        gate_up, down = self._weights[layer]
        gate, up = linear(x.to(self._device, self._dtype), gate_up).chunk(2, dim=-1)
        return linear(silu(gate) * up, down)
