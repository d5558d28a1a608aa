"""The trunk: a transformers model whose experts run on the devices.

    layer.self_attn   ─► attention   every sequence's own keys and values
    layer.mlp(hidden) ─► RemoteMoe   gate ─► logits ─► Selector ─► Dispatcher ─► the devices

The model is built without storage, its experts are removed, and only then are the trunk's tensors
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
from services.bs.batch.decision import RoutingDecision
from services.bs.batch.layer_record import LayerRecord
from services.bs.experts.dispatcher import Dispatcher
from services.bs.experts.layer_metrics import LayerMetrics
from services.bs.experts.selector import Selector


class Trunk:
    """The model's forward pass over the tokens of several sequences; `batch` is the current one."""

    batch: ForwardBatch

    def __init__(
        self,
        checkpoint: Checkpoint,
        selector: Selector,
        dispatcher: Dispatcher,
        metrics: LayerMetrics,
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
            layer.mlp = RemoteMoe(number, layer.mlp, selector, dispatcher, metrics, self)
        weights = {name: tensor.to(device, dtype) for name, tensor in checkpoint.trunk()}
        # Not strict: lm_head is the embedding where the two are tied.
        model.load_state_dict(weights, strict=False, assign=True)
        model.tie_weights()
        # Its buffers are computed, not loaded, so they are still without storage.
        model.model.rotary_emb = MixtralRotaryEmbedding(self._config).to(device)
        self._model = model.train(False)

    @property
    def context_length(self) -> int:
        """The maximum number of positions of the model."""
        return int(self._config.max_position_embeddings)

    @property
    def words(self) -> int:
        """The vocabulary size of the model; a tokenizer may have more tokens."""
        return int(self._config.vocab_size)

    @property
    def weight_bytes(self) -> int:
        """Memory that the trunk's weights take [byte]."""
        return sum(parameter.nbytes for parameter in self._model.parameters())

    @property
    def position_bytes(self) -> int:
        """Memory that a position of a cache takes [byte]."""
        return position_bytes(self._config, self._dtype)

    def cache(self, positions: int, before: KvCache | None = None, shared: int = 0) -> KvCache:
        """Return an empty cache, or one with the first `shared` positions of `before`."""
        return KvCache(self._config, self.device, self._dtype, positions, before, shared)

    @torch.inference_mode()
    def forward(self, parts: Iterable[Segment]) -> None:
        """Run one step: set the logits of every part, and extend its cache.

        A part whose cache begins with another part's follows that part, in the same request.
        """
        started_s = time.monotonic()
        self.batch = batch = ForwardBatch(parts, self._config.num_local_experts)
        ids: list[int] = []
        positions: list[int] = []
        for part in batch.parts:
            ids += part.ids
            positions += range(part.cache.length, part.cache.length + len(part))
        wanted = batch.wanted()
        logits = self._model(
            torch.tensor([ids], device=self.device),
            position_ids=torch.tensor([positions], device=self.device),
            use_cache=False,
            logits_to_keep=torch.tensor(wanted, dtype=torch.int64, device=self.device),
            packed=batch.parts,
        ).logits[0]
        rows = logits.float().cpu().split([part.wanted for part in batch.parts])
        for part, part_logits in zip(batch.parts, rows, strict=True):
            part.cache.advance(len(part))
            part.logits = part_logits
        ended_s = time.monotonic()
        batch.times.forward_s = ended_s - started_s
        if batch.trace is not None:
            batch.trace.started_s, batch.trace.ended_s = started_s, ended_s
        batch.close()


class RemoteMoe(nn.Module):
    """One layer's mixture of experts: the published gate, the policy, the devices' experts."""

    def __init__(
        self,
        layer: int,
        moe: nn.Module,
        selector: Selector,
        dispatcher: Dispatcher,
        metrics: LayerMetrics,
        trunk: Trunk,
    ) -> None:
        super().__init__()
        self.gate = moe.get_submodule("gate")
        self._top_k = int(moe.top_k)  # type: ignore[arg-type]  # nn.Module types any attribute
        self._layer = layer
        self._selector = selector
        self._dispatcher = dispatcher
        self._metrics = metrics
        self._trunk = trunk

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return Σ weight · expert(hidden); hidden and result are 1 × n × m."""
        batch, tokens, record = self._trunk.batch, hidden[0], LayerRecord(self._layer)
        self._dispatcher.take_in()
        record.gate_at_s = time.monotonic()
        logits = nn.functional.linear(tokens, self.gate.weight)  # type: ignore[arg-type]
        record.gated_s = time.monotonic()
        record.decisions = self._select(logits, batch)
        record.selected_s = time.monotonic()
        with self._dispatcher.dispatched(tokens, record):
            self._metrics.book_selection(record, batch)  # while the devices compute
        record.answered_s = time.monotonic()
        output = self._dispatcher.combine(tokens, record)
        self._metrics.book_answers(record, batch)
        record.left_s = time.monotonic()
        batch.book(record)
        return output[None]

    def _select(self, logits: torch.Tensor, batch: ForwardBatch) -> list[RoutingDecision]:
        channel, groups = self._selector.channel(), batch.groups
        # Most batches have one group: slicing its logits would be an operation for nothing.
        parts = [logits[group.rows] for group in groups] if groups[1:] else [logits]
        return [
            self._selector.select(part, self._top_k, group.policy, group.generator, channel)
            for part, group in zip(parts, groups, strict=True)
        ]
