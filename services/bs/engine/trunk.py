"""The trunk: a transformers model whose experts are elsewhere.

    layer.self_attn   ─► attention   every sequence's own keys and values
    layer.mlp(hidden) ─► RemoteMoe   gate ─► logits ─► Selector ─► Dispatcher ─► the devices

The model is built without storage, its experts are taken out, and only then are the trunk's tensors
read: no expert weight ever enters this process.
"""

from __future__ import annotations

import time
from collections.abc import Iterable

import torch
from torch import nn
from transformers import AutoConfig, MixtralForCausalLM
from transformers.models.mixtral.modeling_mixtral import MixtralRotaryEmbedding

from orchestrator.moe.checkpoint import Checkpoint
from services.bs.batch.attention import IMPLEMENTATION, KvCache, position_bytes
from services.bs.batch.batch import ForwardBatch, Segment
from services.bs.experts.dispatcher import Dispatcher
from services.bs.experts.selector import Selector


class Trunk:
    """The model's forward pass over the tokens of several sequences; `step` is the current one."""

    step: ForwardBatch

    def __init__(
        self,
        checkpoint: Checkpoint,
        selector: Selector,
        dispatcher: Dispatcher,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        """Load the trunk."""
        self.device = device
        self._config = AutoConfig.from_pretrained(
            checkpoint.folder, attn_implementation=IMPLEMENTATION
        )
        self._dtype = dtype
        with torch.device("meta"):
            model = MixtralForCausalLM(self._config)
        for number, layer in enumerate(model.model.layers):
            layer.mlp = RemoteMoe(number, layer.mlp, selector, dispatcher, self)
        weights = {name: tensor.to(device, dtype) for name, tensor in checkpoint.trunk()}
        # Not strict: lm_head is the embedding where the two are tied.
        model.load_state_dict(weights, strict=False, assign=True)
        model.tie_weights()
        # Its buffers are computed, not loaded, so they are still without storage.
        model.model.rotary_emb = MixtralRotaryEmbedding(self._config).to(device)
        self._model = model.train(False)

    @property
    def context_length(self) -> int:
        """Positions that the model knows."""
        return int(self._config.max_position_embeddings)

    @property
    def words(self) -> int:
        """Tokens that the model knows; a tokenizer may have more."""
        return int(self._config.vocab_size)

    @property
    def weight_bytes(self) -> int:
        """Memory that the trunk's weights take."""
        return sum(parameter.nbytes for parameter in self._model.parameters())

    @property
    def position_bytes(self) -> int:
        """Memory that a position of a cache takes."""
        return position_bytes(self._config, self._dtype)

    def cache(self, positions: int, before: KvCache | None = None, shared: int = 0) -> KvCache:
        """An empty one, or one that begins with the first `shared` positions of `before`."""
        return KvCache(self._config, self.device, self._dtype, positions, before, shared)

    @torch.inference_mode()
    def forward(self, parts: Iterable[Segment]) -> None:
        """One step: gives every part its logits, and extends its cache.

        A part whose cache begins with another part's comes after that one, of the same request.
        """
        started_s = time.monotonic()
        self.step = step = ForwardBatch(parts, self._config.num_local_experts)
        ids: list[int] = []
        positions: list[int] = []
        for part in step.parts:
            ids += part.ids
            positions += range(part.cache.length, part.cache.length + len(part))
        wanted = step.wanted()
        logits = self._model(
            torch.tensor([ids], device=self.device),
            position_ids=torch.tensor([positions], device=self.device),
            use_cache=False,
            logits_to_keep=torch.tensor(wanted, dtype=torch.int64, device=self.device),
            packed=step.parts,
        ).logits[0]
        rows = logits.float().cpu().split([part.wanted for part in step.parts])
        for part, own in zip(step.parts, rows, strict=True):
            part.cache.advance(len(part))
            part.logits = own
        ended_s = time.monotonic()
        step.times.forward_s = ended_s - started_s
        if step.trace is not None:
            step.trace.started_s, step.trace.ended_s = started_s, ended_s
        step.close()


class RemoteMoe(nn.Module):
    """One layer's mixture of experts: the published gate, the policy, the devices' experts."""

    def __init__(
        self, layer: int, moe: nn.Module, selector: Selector, dispatcher: Dispatcher, trunk: Trunk
    ) -> None:
        super().__init__()
        self.gate = moe.get_submodule("gate")
        self._top_k = int(moe.top_k)  # type: ignore[arg-type]  # nn.Module types any attribute
        self._layer = layer
        self._selector = selector
        self._dispatcher = dispatcher
        self._trunk = trunk

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Σ weight · expert(hidden); hidden and result 1 × n × m."""
        step = self._trunk.step
        entered_s = time.monotonic()
        self._dispatcher.take_in()
        started_s = time.monotonic()
        logits = nn.functional.linear(hidden[0], self.gate.weight)  # type: ignore[arg-type]
        gated_s = time.monotonic()
        channel = self._selector.channel()
        # A step of one group, as most are, needs no part of the logits: a part is an operation.
        parts = [logits[group.rows] for group in step.groups] if step.groups[1:] else [logits]
        choices = [
            self._selector.select(part, self._top_k, group.policy, group.generator, channel)
            for part, group in zip(parts, step.groups, strict=True)
        ]
        selected_s = time.monotonic()
        output = self._dispatcher.layer(self._layer, hidden[0], choices, step)
        step.times.gate_s += gated_s - started_s
        step.times.selection_s += selected_s - gated_s
        left_s = time.monotonic()
        step.layers_s.append(left_s - started_s)
        step.times.moe_s += left_s - entered_s
        if step.trace is not None:
            times_s = entered_s, started_s, gated_s, selected_s
            step.trace.layer(self._layer, times_s, step.left_out())
        return output[None]
