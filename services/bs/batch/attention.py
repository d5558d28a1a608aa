"""Attention over the packed tokens of several sequences, each with its own keys and values.

    one row of N tokens   │ p p p p │ a a │ b b b │ c │     p: what a and b begin with, c: decodes
                               │      │ ▲    │ ▲    │
    caches                     P ─────┼─┴────┼─┘    C       a's and b's begin as copies of P
                                      A      B
    output                │ p p p p │ a a │ b b b │ c │     each attended to its own cache alone

transformers calls `_attend` in every layer, between RoPE and the output projection; its own cache
is not used. A sequence that begins with another's tokens may be in the same step as those: at each
layer they come first. A position takes 2 · key-value heads · head size elements in each layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, PreTrainedConfig

# The name under which transformers finds it; no mask is made for a name that it does not know.
IMPLEMENTATION = "packed"


class KvCache:
    """The keys and values of one sequence in all layers, with room for all that it may have.

    On a CPU the system gives memory to what has been written only.

    Attributes:
        length: positions that it has in every layer.
        positions: that it has room for.
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
        """Empty, or beginning with the first `shared` positions that `before` has or will have."""
        layers, heads, head = _shape(config)
        held = torch.empty((layers, 2, 1, heads, positions, head), device=device, dtype=dtype)
        self._layers = [(layer[0], layer[1]) for layer in held]
        self._before = before
        self.positions = positions
        self.length = shared

    def extend(
        self, layer: int, key: torch.Tensor, value: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Put a layer's next keys and values (1 × heads × n × size) in; all that it has then."""
        keys, values = self._layers[layer]
        if self._before is not None:
            for own, other in zip((keys, values), self._before._layers[layer], strict=True):
                own[:, :, : self.length] = other[:, :, : self.length]
        n = key.shape[-2]
        keys.narrow(-2, self.length, n).copy_(key)
        values.narrow(-2, self.length, n).copy_(value)
        return keys.narrow(-2, 0, self.length + n), values.narrow(-2, 0, self.length + n)

    def advance(self, tokens: int) -> None:
        """Every layer has those tokens now."""
        self.length += tokens
        self._before = None


def position_bytes(config: PreTrainedConfig, dtype: torch.dtype) -> int:
    """What a position takes in all layers."""
    layers, heads, head = _shape(config)
    return layers * 2 * heads * head * dtype.itemsize


def _shape(config: PreTrainedConfig) -> tuple[int, int, int]:
    """Layers, heads of keys and values, and the size of one."""
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return config.num_hidden_layers, config.num_key_value_heads, head


class Packed(Protocol):
    """A sequence's tokens in the row."""

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
    """Output 1 × N × heads × size of query, key and value 1 × heads × N × size."""
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
