"""The residual streams of the dense and the carved model over the same texts, layer by layer.

    dense   x ──► attention ──► + ──► dense FFN ──► + ──► x'
    carved  x ──► attention ──► + ──► experts ────► + ──► x'     + correction towards dense x'

Streams are fp32, products bf16.
"""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import LlamaForCausalLM

from models.smollm2 import carving
from models.smollm2.carving import Carved, Tokens

TEXTS_AT_ONCE = 8


class Streams:
    """Both streams, (texts, length, d), at the entry of a layer; `enter` and `leave` each in turn.

    Args:
        model: the dense model in bf16.
        texts: tokens, (texts, length).
        reported: number of last texts that are held out.
    """

    def __init__(self, model: LlamaForCausalLM, texts: Tensor, reported: int) -> None:
        self._model = model
        self._reported = reported
        self._dense = model.model.embed_tokens(texts).float()
        self._carved = self._dense.clone()
        positions = torch.arange(texts.shape[1])[None]
        self._angles = model.model.rotary_emb(torch.empty(0, dtype=model.dtype), positions)
        tokens, width = texts.numel(), model.config.hidden_size
        self._inputs = torch.empty(tokens, width)
        self._hidden = torch.empty(tokens, model.config.intermediate_size, dtype=model.dtype)
        self._target, self._drift = torch.empty(2, tokens, width)
        self._energy = torch.empty(tokens)

    def enter(self, number: int) -> Tokens:
        """Run a layer's attention and dense FFN on both streams; return the experts' tokens.

        The next layer's tokens overwrite them.
        """
        layer = cast(Any, self._model.model.layers[number])
        length = self._dense.shape[1]
        for start in range(0, len(self._dense), TEXTS_AT_ONCE):
            texts = slice(start, start + TEXTS_AT_ONCE)
            dense, carved = self._dense[texts], self._carved[texts]
            rows = slice(start * length, (start + len(dense)) * length)
            self._attend(layer, dense)
            self._attend(layer, carved)
            dense, carved = dense.flatten(0, 1), carved.flatten(0, 1)
            self._inputs[rows], self._hidden[rows], self._target[rows] = _ffn(layer, carved)
            dense += _ffn(layer, dense)[2]
            self._drift[rows] = dense - carved - self._target[rows]
            self._energy[rows] = dense.square().sum(dim=1)
        tokens = slice(len(self._dense) * length)
        return Tokens(
            self._inputs[tokens],
            self._hidden[tokens],
            self._target[tokens],
            self._drift[tokens],
            carving.token_weights(self._energy[tokens], self._reported * length),
        )

    def leave(self, carved: Carved, tokens: Tokens) -> None:
        """Add the experts' output to the carved stream."""
        stream = self._carved.flatten(0, 1)
        stream += carving.answer(carved, tokens.inputs, tokens.hidden)

    def forget(self, texts: int) -> None:
        """Drop the first texts."""
        self._dense, self._carved = self._dense[texts:], self._carved[texts:]

    def perplexities(self, texts: Tensor) -> tuple[float, float]:
        """Return the dense and carved models' perplexities on the last texts, after all layers."""
        return self._perplexity(self._dense, texts), self._perplexity(self._carved, texts)

    def _perplexity(self, streams: Tensor, texts: Tensor) -> float:
        losses = []
        for stream, text in zip(streams[-len(texts) :], texts, strict=True):
            normed = self._model.model.norm(stream[:-1]).to(self._model.dtype)
            losses.append(F.cross_entropy(self._model.lm_head(normed).float(), text[1:]))
        return float(torch.stack(losses).mean().exp())

    def _attend(self, layer: Any, stream: Tensor) -> None:
        normed = layer.input_layernorm(stream).to(self._model.dtype)
        output, _ = layer.self_attn(normed, position_embeddings=self._angles)
        stream += output.float()


def _ffn(layer: Any, stream: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return inputs, activations (bf16) and output of the dense FFN on a stream (n, d)."""
    inputs = layer.post_attention_layernorm(stream).float()
    ffn = layer.mlp
    low = inputs.to(ffn.up_proj.weight.dtype)
    hidden = ffn.act_fn(ffn.gate_proj(low)) * ffn.up_proj(low)
    return inputs, hidden, ffn.down_proj(hidden).float()
