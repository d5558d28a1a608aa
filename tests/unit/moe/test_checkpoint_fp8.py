"""An FP8 checkpoint equals the model whose weights are its numbers times their scales."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import MixtralForCausalLM

from orchestrator.errors import InputError
from orchestrator.moe.checkpoint import Checkpoint
from tests.harness.cell import TINY

BLOCK = (10, 7)  # divides no side of a weight
SCALED = "model.layers.0.self_attn.k_proj.weight"
Scale = Callable[[Tensor], tuple[Tensor, Tensor]]  # a weight to its stored and full scale


def for_tensor(weight: Tensor) -> tuple[Tensor, Tensor]:
    scale = weight.abs().max() / 448
    return scale.reshape(1), scale.expand(weight.shape)


def for_tensor_without_axis(weight: Tensor) -> tuple[Tensor, Tensor]:
    scale, full = for_tensor(weight)
    return scale.reshape(()), full


def for_row(weight: Tensor) -> tuple[Tensor, Tensor]:
    scale = weight.abs().amax(-1, keepdim=True) / 448
    return scale.bfloat16(), scale.bfloat16().float().expand(weight.shape)


def for_expert(weight: Tensor) -> tuple[Tensor, Tensor]:
    scale = weight.abs().amax((-2, -1), keepdim=True) / 448
    return scale.flatten(), scale.expand(weight.shape)


def for_block(weight: Tensor) -> tuple[Tensor, Tensor]:
    rows, columns = weight.shape[-2:]
    lead = weight.shape[:-2]
    grid = torch.rand(*lead, -(-rows // BLOCK[0]), -(-columns // BLOCK[1])) / 100 + 0.001
    row = torch.arange(rows) // BLOCK[0]
    column = torch.arange(columns) // BLOCK[1]
    return grid, grid[..., row[:, None], column[None, :]]


def quantized(
    weights: dict[str, Tensor], scale: Scale, suffix: str
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return the weights in FP8 with their scales, and the weights that they represent."""
    kept, meant = {}, {}
    for name, weight in weights.items():
        kept[name] = meant[name] = weight
        if weight.dim() > 1 and ("proj" in name or ".experts." in name):
            small, full = scale(weight)
            kept[name] = (weight / full).clamp(-448, 448).to(torch.float8_e4m3fn)
            kept[name + suffix] = small.contiguous()
            meant[name] = kept[name].float() * full
    return kept, meant


@pytest.fixture(scope="module")
def model() -> MixtralForCausalLM:
    torch.manual_seed(6)
    return MixtralForCausalLM(TINY)


def folder(path: Path, weights: dict[str, Tensor], **config: object) -> Path:
    path.mkdir()
    written = TINY.to_dict() | {"model_type": "mixtral"} | config
    (path / "config.json").write_text(json.dumps(written))
    save_file({name: weight.contiguous() for name, weight in weights.items()}, path / FILE)
    return path


FILE = "model.safetensors"
FP8 = {"quant_method": "fp8", "activation_scheme": "static"}
BLOCKS = {"quant_method": "fp8", "weight_block_size": list(BLOCK)}
CHANNELS = {"quant_method": "compressed-tensors", "format": "float-quantized"}


@pytest.mark.parametrize("fused", [False, True], ids=["one tensor per expert", "fused"])
@pytest.mark.parametrize(
    ("scale", "suffix", "config"),
    [
        (for_tensor, "_scale", FP8),
        (for_tensor_without_axis, "_scale_inv", FP8),
        (for_tensor, "_scale", {"quant_method": "modelopt", "quant_algo": "FP8"}),
        (for_row, "_scale", CHANNELS),
        (for_row, "_scale", {"quant_method": "fbgemm_fp8"}),
        (for_block, "_scale_inv", BLOCKS),
        (for_tensor, "_scale", None),
    ],
)
def test_trunk_and_experts_equal_those_of_the_dequantised_model(
    model: MixtralForCausalLM,
    tmp_path: Path,
    scale: Scale,
    suffix: str,
    config: dict[str, object] | None,
    *,
    fused: bool,
) -> None:
    model.save_pretrained(tmp_path / "whole")
    weights = model.state_dict() if fused else load_file(tmp_path / "whole" / FILE)
    kept, meant = quantized(weights, scale, suffix)
    stated = Checkpoint(folder(tmp_path / "fp8", kept, quantization_config=config))
    plain = Checkpoint(folder(tmp_path / "plain", meant))
    assert same(dict(stated.trunk()), dict(plain.trunk()))
    for layer in range(3):
        for q in range(4):
            for found, expected in zip(
                stated.expert(layer, q), plain.expert(layer, q), strict=True
            ):
                torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)


def test_a_fused_tensor_may_have_one_scale_per_expert(
    model: MixtralForCausalLM, tmp_path: Path
) -> None:
    weights = model.state_dict()
    fused = {name: weight for name, weight in weights.items() if ".experts." in name}
    kept, meant = quantized(fused, for_expert, "_scale")
    stated = Checkpoint(folder(tmp_path / "fp8", weights | kept, quantization_config=FP8))
    plain = Checkpoint(folder(tmp_path / "plain", weights | meant))
    for q in range(4):
        for found, expected in zip(stated.expert(1, q), plain.expert(1, q), strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)


def same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> bool:
    return found.keys() == expected.keys() and all(
        torch.allclose(found[name], expected[name], rtol=1e-6, atol=0) for name in found
    )


def drop_scale(kept: dict[str, Tensor]) -> None:
    del kept[SCALED + "_scale"]


def reshape_scale(kept: dict[str, Tensor]) -> None:
    kept[SCALED + "_scale"] = torch.ones(3)


def make_scale_integer(kept: dict[str, Tensor]) -> None:
    kept[SCALED + "_scale"] = torch.ones(1, dtype=torch.uint8)


@pytest.mark.parametrize(
    ("damage", "config", "message"),
    [
        (
            drop_scale,
            FP8,
            f"tensor {SCALED} is F8_E4M3, but its scale is missing: tensor {SCALED}_scale",
        ),
        (
            reshape_scale,
            FP8,
            rf"{SCALED}_scale is F32 of shape \(3,\); allowed: a scale for \(8, 16\)",
        ),
        (make_scale_integer, FP8, f"{SCALED}_scale is U8"),
        (dict, BLOCKS | {"weight_block_size": [0, 7]}, r"weight_block_size is \[0, 7\], allowed"),
    ],
)
def test_a_tensor_without_a_valid_scale_is_refused_by_name(
    model: MixtralForCausalLM,
    tmp_path: Path,
    damage: Callable[[dict[str, Tensor]], object],
    config: dict[str, object],
    message: str,
) -> None:
    kept, _ = quantized(model.state_dict(), for_tensor, "_scale")
    damage(kept)
    with pytest.raises(InputError, match=message) as caught:
        Checkpoint(folder(tmp_path / "fp8", kept, quantization_config=config))
    assert "\n" not in str(caught.value)
