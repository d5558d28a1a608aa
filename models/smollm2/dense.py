"""Load the dense Llama and its tokenizer from a GGUF file.

    token_embd.weight                  model.embed_tokens.weight (the head is tied to it)
    blk.I.attn_q|k|v|output.weight     model.layers.I.self_attn.q|k|v|o_proj.weight
    blk.I.ffn_gate|up|down.weight      model.layers.I.mlp.gate|up|down_proj.weight
    blk.I.attn_norm|ffn_norm.weight    model.layers.I.input|post_attention_layernorm.weight
    output_norm.weight                 model.norm.weight

GGUF orders the rows of q and k for another form of rotary embedding; the order is restored here.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gguf import GGUFReader, dequantize
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from orchestrator.errors import InputError

ARCHITECTURE = "llama"
CONTROL = 3  # the type of tokens that text is never split into
_NAMES = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
}


def load(file: Path) -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast]:
    """Load the model, in fp32, and its tokenizer.

    Raises:
        InputError: the file is not a GGUF file of a Llama with a byte-level vocabulary.
    """
    try:
        reader = GGUFReader(file)
        if (kind := _field(reader, "general.architecture")) != ARCHITECTURE:
            raise InputError(f"{file}: architecture is {kind!r}, supported: {ARCHITECTURE!r}")
        model = LlamaForCausalLM(_config(reader))
        model.eval()  # type: ignore[no-untyped-call]
        missing = model.load_state_dict(dict(_weights(reader, model.config)), strict=False)
        if missing.unexpected_keys or missing.missing_keys != ["lm_head.weight"]:
            raise InputError(f"{file}: its tensors are not those of a Llama with a tied head")
        return model, _tokenizer(reader)
    except (OSError, ValueError, LookupError) as error:
        raise InputError(f"{file}: not a readable GGUF file ({error})") from None


def _field(reader: GGUFReader, name: str) -> Any:
    field = reader.fields.get(name)
    if field is None:
        raise KeyError(f"{name} is missing")
    return field.contents()


def _config(reader: GGUFReader) -> LlamaConfig:
    def number(name: str) -> Any:
        return _field(reader, f"{ARCHITECTURE}.{name}")

    return LlamaConfig(
        vocab_size=len(_field(reader, "tokenizer.ggml.tokens")),
        hidden_size=number("embedding_length"),
        intermediate_size=number("feed_forward_length"),
        num_hidden_layers=number("block_count"),
        num_attention_heads=number("attention.head_count"),
        num_key_value_heads=number("attention.head_count_kv"),
        max_position_embeddings=number("context_length"),
        rms_norm_eps=round(number("attention.layer_norm_rms_epsilon"), 9),
        rope_parameters={"rope_type": "default", "rope_theta": number("rope.freq_base")},
        bos_token_id=_field(reader, "tokenizer.ggml.bos_token_id"),
        eos_token_id=_field(reader, "tokenizer.ggml.eos_token_id"),
        pad_token_id=_field(reader, "tokenizer.ggml.padding_token_id"),
        tie_word_embeddings=True,
    )


def _weights(reader: GGUFReader, config: LlamaConfig) -> Iterator[tuple[str, Tensor]]:
    for tensor in reader.tensors:
        array = dequantize(tensor.data, tensor.tensor_type)
        weight = torch.from_numpy(np.array(array, dtype=np.float32))
        if tensor.name == "token_embd.weight":
            yield "model.embed_tokens.weight", weight
        elif tensor.name == "output_norm.weight":
            yield "model.norm.weight", weight
        else:
            _, layer, part, _ = tensor.name.split(".")
            if part == "attn_q":
                weight = _half_by_half(weight, config.num_attention_heads)
            if part == "attn_k":
                weight = _half_by_half(weight, config.num_key_value_heads or 1)
            yield f"model.layers.{layer}.{_NAMES[part]}.weight", weight


def _half_by_half(weight: Tensor, heads: int) -> Tensor:
    """Reorder each head's rows from pairs to all first halves, then all second halves."""
    pairs = weight.view(heads, -1, 2, weight.shape[1])
    return pairs.transpose(1, 2).reshape(weight.shape)


def _tokenizer(reader: GGUFReader) -> PreTrainedTokenizerFast:
    """Return a byte-level BPE in which every digit is a separate token."""
    tokens: list[str] = _field(reader, "tokenizer.ggml.tokens")
    kinds: list[int] = _field(reader, "tokenizer.ggml.token_type")
    merges = [tuple(pair.split(" ")) for pair in _field(reader, "tokenizer.ggml.merges")]
    bpe = models.BPE({token: number for number, token in enumerate(tokens)}, merges)
    tokenizer = Tokenizer(bpe)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    control = [token for token, kind in zip(tokens, kinds, strict=True) if kind == CONTROL]
    tokenizer.add_special_tokens(
        [AddedToken(token, special=True, normalized=False) for token in control]
    )

    def special(name: str) -> str:
        return str(tokens[_field(reader, f"tokenizer.ggml.{name}_token_id")])

    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer,
        bos_token=special("bos"),
        eos_token=special("eos"),
        unk_token=special("unknown"),
        pad_token=special("padding"),
        clean_up_tokenization_spaces=False,
        model_max_length=_field(reader, f"{ARCHITECTURE}.context_length"),
        chat_template=_field(reader, "tokenizer.chat_template"),
    )
