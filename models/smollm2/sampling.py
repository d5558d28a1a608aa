"""Sample a batch of texts from a dense Llama, token by token.

Keys and values are in preallocated buffers (transformers' caches are copied at every step), and the
queries that share a key head go through attention as if they were positions of one query:

    q (rows, kv heads · group, 1, head) ──► (rows, kv heads, group, head) ──► attention, no mask
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import LlamaForCausalLM
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

TEMPERATURE = 1.0  # varied words matter more here than sense


@torch.inference_mode()
def sample(
    model: LlamaForCausalLM,
    openings: list[list[int]],
    length: int,
    generator: torch.Generator,
    advance: Callable[[int], object],
) -> Tensor:
    """Return texts of `length` tokens, (rows, length): each opening, continued by sampled tokens.

    Args:
        model: the model, in the precision to compute in.
        openings: the first tokens of each text, at least one.
        length: tokens of every text; none ends earlier.
        generator: random generator of the sampling.
        advance: called after each step with the number of new tokens.
    """
    config = model.config
    rows, kv = len(openings), cast(int, config.num_key_value_heads)
    head = config.hidden_size // config.num_attention_heads
    shape = (config.num_hidden_layers, 2, rows, kv, length, head)
    cache = torch.empty(shape, dtype=model.dtype)
    forced = torch.full((rows, length), -1)
    for row, opening in enumerate(openings):
        forced[row, : len(opening)] = torch.tensor(opening[:length])
    tokens = forced[:, :1]
    texts = [tokens]
    for position in range(length - 1):
        logits = _step(model, tokens, cache, position)
        drawn = _draw(logits, generator)
        given = forced[:, position + 1 : position + 2]
        tokens = torch.where(given >= 0, given, drawn)
        texts.append(tokens)
        advance(rows)
    return torch.cat(texts, dim=1)


def _draw(logits: Tensor, generator: torch.Generator) -> Tensor:
    """Sample a token for each row, (rows, 1), by inverting the cumulative probabilities."""
    cumulative = (logits.float() / TEMPERATURE).softmax(dim=-1).cumsum(dim=-1)
    drawn = torch.rand(len(logits), 1, generator=generator) * cumulative[:, -1:]
    return torch.searchsorted(cumulative, drawn).clamp_max(logits.shape[-1] - 1)


def _step(model: LlamaForCausalLM, tokens: Tensor, cache: Tensor, position: int) -> Tensor:
    """Return logits (rows, vocabulary) after one token of each text (rows, 1)."""
    states = model.model.embed_tokens(tokens)
    angles = model.model.rotary_emb(states, torch.tensor([[position]]))
    for number, module in enumerate(model.model.layers):
        layer = cast(Any, module)
        normed = layer.input_layernorm(states)
        states = states + _attend(layer.self_attn, normed, angles, cache[number], position)
        states = states + layer.mlp(layer.post_attention_layernorm(states))
    logits: Tensor = model.lm_head(model.model.norm(states[:, -1]))
    return logits


def _attend(
    attention: Any, normed: Tensor, angles: tuple[Tensor, Tensor], cache: Tensor, position: int
) -> Tensor:
    rows, kv, head = cache.shape[1], cache.shape[2], cache.shape[4]
    query = attention.q_proj(normed).view(rows, 1, -1, head).transpose(1, 2)
    key = attention.k_proj(normed).view(rows, 1, -1, head).transpose(1, 2)
    query, key = apply_rotary_pos_emb(query, key, *angles)
    cache[0, :, :, position] = key[:, :, 0]
    cache[1, :, :, position] = attention.v_proj(normed).view(rows, kv, head)
    seen = cache[:, :, :, : position + 1]
    mixed = F.scaled_dot_product_attention(query.reshape(rows, kv, -1, head), seen[0], seen[1])
    projected: Tensor = attention.o_proj(mixed.reshape(rows, 1, -1))
    return projected
