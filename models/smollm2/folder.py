"""Write a carved model as a Hugging Face folder, in the published layout of Mixtral.

Attention, norms and embeddings are the dense model's, as are the experts' gate and up rows:

    block_sparse_moe.gate.weight            the layer's gate (experts, d)
    block_sparse_moe.experts.Q.w1, .w3      rows of gate_proj and up_proj of Q's neurons (kept, d)
    block_sparse_moe.experts.Q.w2           Q's own down-projection (d, kept)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import (
    GenerationConfig,
    LlamaForCausalLM,
    MixtralConfig,
    PreTrainedTokenizerFast,
)

from models.smollm2.carving import Carved


def write(
    folder: Path,
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    carved: Callable[[int], Carved],
) -> None:
    """Write configuration, weights in bf16, and tokenizer with its chat template.

    Args:
        folder: an empty folder.
        model: the dense model.
        tokenizer: the dense model's tokenizer.
        carved: returns a layer by its number.
    """
    weights = dict(_weights(model, carved))
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    experts, kept, _ = carved(0).down.shape
    _config(model, experts, kept).save_pretrained(folder)
    dense = model.config
    GenerationConfig(  # type: ignore[no-untyped-call]
        bos_token_id=dense.bos_token_id,
        eos_token_id=dense.eos_token_id,
        pad_token_id=dense.pad_token_id,
    ).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    for file in folder.iterdir():
        file.chmod(0o644)  # for containers that run as another user


def _config(model: LlamaForCausalLM, experts: int, kept: int) -> MixtralConfig:
    dense = model.config
    return MixtralConfig(
        architectures=["MixtralForCausalLM"],
        vocab_size=dense.vocab_size,
        hidden_size=dense.hidden_size,
        intermediate_size=kept,
        num_hidden_layers=dense.num_hidden_layers,
        num_attention_heads=dense.num_attention_heads,
        num_key_value_heads=dense.num_key_value_heads or dense.num_attention_heads,
        num_local_experts=experts,
        num_experts_per_tok=2,
        max_position_embeddings=dense.max_position_embeddings,
        rms_norm_eps=dense.rms_norm_eps,
        rope_parameters=dense.rope_parameters,
        bos_token_id=dense.bos_token_id,
        eos_token_id=dense.eos_token_id,
        pad_token_id=dense.pad_token_id,
        tie_word_embeddings=True,
        sliding_window=None,
        dtype="bfloat16",
    )


def _weights(
    model: LlamaForCausalLM, carved: Callable[[int], Carved]
) -> Iterator[tuple[str, Tensor]]:
    for name, weight in model.state_dict().items():
        if ".mlp." not in name and name != "lm_head.weight":
            yield name, weight.bfloat16()
    for number in range(model.config.num_hidden_layers):
        layer = carved(number)
        moe = f"model.layers.{number}.block_sparse_moe"
        ffn = f"model.layers.{number}.mlp"
        gate = model.get_parameter(f"{ffn}.gate_proj.weight").bfloat16()
        up = model.get_parameter(f"{ffn}.up_proj.weight").bfloat16()
        yield f"{moe}.gate.weight", layer.gate.bfloat16()
        for q, (neurons, down) in enumerate(zip(layer.neurons, layer.down, strict=True)):
            yield f"{moe}.experts.{q}.w1.weight", gate[neurons]
            yield f"{moe}.experts.{q}.w2.weight", down.T.to(torch.bfloat16).contiguous()
            yield f"{moe}.experts.{q}.w3.weight", up[neurons]
