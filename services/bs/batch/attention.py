"""Attention over the packed tokens of several sequences, each with its own keys and values.

    one row of N tokens   │ p p p p │ a a │ b b b │ c │     p: prefix of a and b, c: decodes
                               │      │ ▲    │ ▲    │
    caches                     P ─────┼─┴────┼─┘    C       A and B begin as copies of P
                                      A      B
    output                │ p p p p │ a a │ b b b │ c │     each attends to its own cache only

transformers calls `_attend` in every layer, between RoPE and the output projection; its own cache
is not used. A sequence may be in the same step as the prefix that it begins with: each layer
computes the prefix first. A position takes 2 · key-value heads · head size elements in each layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, PreTrainedConfig

# The name registered with transformers, which makes no mask for a name that it does not know.
IMPLEMENTATION = "packed"


class KvCache:
    """The keys and values of one sequence in all layers, allocated for all its positions.

    On a CPU, the system commits memory only for what has been written.

    Attributes:
        length: positions filled in every layer.
        positions: positions that there is room for.
    """

    def __init__(
        self,
        config: PreTrainedConfig,
        device: torch.device,
        dtype: torch.dtype,
        positions: int,
        before: KvCache | None = None,
        shared: int = 0,
    ) -> None:
        """Create an empty cache, or one that begins with the first `shared` positions of `before`.

        `before` may be filled in the same step: its positions are copied layer by layer.
        """
        layers, heads, head = _shape(config)
        storage = torch.empty((layers, 2, 1, heads, positions, head), device=device, dtype=dtype)
        self._layers = [(layer[0], layer[1]) for layer in storage]
        self._before = before
        self.positions = positions
        self.length = shared

    def extend(
        self, layer: int, key: torch.Tensor, value: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Append a layer's next keys and values (1 × heads × n × size); return all of them."""
        keys, values = self._layers[layer]
        if self._before is not None:
            for target, source in zip((keys, values), self._before._layers[layer], strict=True):
                target[:, :, : self.length] = source[:, :, : self.length]
        n = key.shape[-2]
        keys.narrow(-2, self.length, n).copy_(key)
        values.narrow(-2, self.length, n).copy_(value)
        return keys.narrow(-2, 0, self.length + n), values.narrow(-2, 0, self.length + n)

    def advance(self, tokens: int) -> None:
        """Record that every layer has `tokens` more positions."""
        self.length += tokens
        self._before = None


def position_bytes(config: PreTrainedConfig, dtype: torch.dtype) -> int:
    """Return the bytes that a position takes in all layers."""
    layers, heads, head = _shape(config)
    return layers * 2 * heads * head * dtype.itemsize


def _shape(config: PreTrainedConfig) -> tuple[int, int, int]:
    """Return the layers, the key-value heads, and the head size."""
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return config.num_hidden_layers, config.num_key_value_heads, head


class Packed(Protocol):
    """A sequence's tokens in the packed row."""

    cache: KvCache

    def __len__(self) -> int: ...


def _attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    _mask: torch.Tensor | None,
    *,
    scaling: float,
    packed: Sequence[Packed],
    sliding_window: int | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Return the output (1 × N × heads × size) for query, key, value (1 × heads × N × size)."""
    layer, grouped = int(module.layer_idx), query.shape[1] != key.shape[1]  # type: ignore[arg-type]
    outputs, at = [], 0
    for part in packed:
        rows = slice(at, at := at + len(part))
        keys, values = part.cache.extend(layer, key[:, :, rows], value[:, :, rows])
        n, end = len(part), keys.shape[-2]
        windowed = sliding_window is not None and end > sliding_window
        mask = None
        if windowed or 1 < n < end:
            mask = torch.ones(n, end, dtype=torch.bool, device=keys.device).tril(end - n)
            if sliding_window is not None:
                mask = mask.triu(end - n - sliding_window + 1)
        output = scaled_dot_product_attention(
            *(query[:, :, rows], keys, values),
            attn_mask=mask,
            is_causal=mask is None and n > 1,
            scale=scaling,
            enable_gqa=grouped,
        )
        outputs.append(output)
    whole = outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=2)
    return whole.transpose(1, 2), None


AttentionInterface.register(IMPLEMENTATION, _attend)
