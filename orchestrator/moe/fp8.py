"""FP8 weights: 8-bit floating point numbers, each tensor with a scale.

    weight = number · scale      X.weight and X.weight_scale; or X.weight_scale_inv, which is a
                                 factor as well, despite its name

A scale has one entry per tensor, per row, or per block of rows and columns; the tensor's edge may
cut off the last block. Scales of activations (`input_scale`) are ignored: activations are not
quantised.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from orchestrator.errors import InputError

DTYPES = ("F8_E4M3", "F8_E5M2")
SCALE_SUFFIXES = ("_scale", "_scale_inv")
# quantization_config.quant_method, and the value that its `format` or `quant_algo` must have.
_METHODS: dict[str, tuple[str, str] | None] = {
    "fp8": None,
    "fbgemm_fp8": None,
    "compressed-tensors": ("format", "float-quantized"),
    "modelopt": ("quant_algo", "FP8"),
}

Block = tuple[int, int]


def check_config(config: Mapping[str, Any]) -> None:
    """Raise InputError, without the file name, for a quantisation that is not FP8 with scales."""
    quantization = config.get("quantization_config") or config.get("compression_config")
    if quantization is None:
        return
    method = quantization.get("quant_method") if isinstance(quantization, dict) else quantization
    if not isinstance(method, str) or method not in _METHODS:
        raise InputError(
            f"quantization_config.quant_method is {method!r}, supported: {', '.join(_METHODS)}; "
            "or weights that are not quantised"
        )
    if detail := _METHODS[method]:
        field, supported = detail
        if quantization.get(field) != supported:
            raise InputError(
                f"quantization_config.{field} is {quantization.get(field)!r}, "
                f"supported with {method}: {supported!r}"
            )


def block_of(config: Mapping[str, Any]) -> Block | None:
    """Return the rows and columns that share a scale; None if the configuration sets none."""
    quantization = config.get("quantization_config")
    block = quantization.get("weight_block_size") if isinstance(quantization, dict) else None
    if block is None:
        return None
    if not (
        isinstance(block, list)
        and len(block) == 2
        and all(type(size) is int and size > 0 for size in block)
    ):
        raise InputError(
            f"quantization_config.weight_block_size is {block!r}, allowed: two integers above 0"
        )
    return block[0], block[1]


def scale_grid(weight: Block, scale: tuple[int, ...], block: Block | None) -> Block | None:
    """Return the rows and columns that one entry of the scale covers; None if shapes do not match.

    Args:
        weight: shape of the weight.
        scale: shape of the scale.
        block: the configured block.
    """
    if len(scale) > 2 or 0 in scale:
        return None
    grid = (*scale, 1, 1)[:2]
    if block and grid == tuple(-(-size // part) for size, part in zip(weight, block, strict=True)):
        return block
    if weight[0] % grid[0] or weight[1] % grid[1]:
        return None
    return weight[0] // grid[0], weight[1] // grid[1]


def dequantize(weight: torch.Tensor, scale: torch.Tensor, block: Block) -> torch.Tensor:
    """Return the weight (rows × columns) in fp32, its scale applied block by block."""
    rows, columns = weight.shape
    grid = scale.float().reshape(-(-rows // block[0]), -(-columns // block[1]))
    factors = grid.repeat_interleave(block[0], 0).repeat_interleave(block[1], 1)
    return weight.float() * factors[:rows, :columns]
