"""The trunk: a transformers model whose experts are elsewhere.

    layer.mlp.gate(hidden)                    ─► SelectingGate   logits ─► selection policy
    layer.mlp.experts(hidden, index, weight)  ─► RemoteExperts   ─► Dispatcher ─► the devices

The model is built without storage, its experts are replaced, and only then are the trunk's tensors
read: no expert weight ever enters this process.
"""

from __future__ import annotations

import time

import torch
from torch import nn
from transformers import AutoConfig, DynamicCache, MixtralForCausalLM
from transformers.models.mixtral.modeling_mixtral import MixtralRotaryEmbedding

from orchestrator.checkpoint import Checkpoint
from orchestrator.errors import InputError
from orchestrator.selection import topk, without
from services.bs.dispatch import Dispatcher
from services.bs.meter import Meter


class Trunk:
    """The model's forward pass over one sequence; `meter` collects the current request's times."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        dispatcher: Dispatcher,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        """Load the trunk. InputError when the checkpoint lacks one of its tensors."""
        self.meter = Meter()
        self._device = device
        self._config = AutoConfig.from_pretrained(checkpoint.folder)
        with torch.device("meta"):
            model = MixtralForCausalLM(self._config)
        for number, layer in enumerate(model.model.layers):
            layer.mlp.gate = SelectingGate(layer.mlp.gate, dispatcher, self)
            layer.mlp.experts = RemoteExperts(number, dispatcher, self)
        weights = {name: tensor.to(device, dtype) for name, tensor in checkpoint.trunk()}
        try:
            model.load_state_dict(weights, strict=False, assign=True)
        except RuntimeError as error:  # a tensor of another shape than config.json asks for
            what = str(error).splitlines()[-1].strip()
            raise InputError(f"{checkpoint.folder}: {what}") from None
        model.tie_weights()
        # Its buffers are computed, not loaded, so they are still without storage.
        model.model.rotary_emb = MixtralRotaryEmbedding(self._config).to(device)
        for name, parameter in model.named_parameters():
            if parameter.is_meta:
                raise InputError(f"{checkpoint.folder}: tensor {name} is missing")
        self._model = model.train(False)

    @property
    def context_length(self) -> int:
        """Positions that the model knows."""
        return int(self._config.max_position_embeddings)

    @property
    def weight_bytes(self) -> int:
        """Memory that the trunk's weights take."""
        return sum(parameter.nbytes for parameter in self._model.parameters())

    def cache(self) -> DynamicCache:
        """An empty key-value cache."""
        return DynamicCache(config=self._config)

    @torch.inference_mode()
    def forward(self, ids: list[int], cache: DynamicCache) -> torch.Tensor:
        """Logits (len(ids) × vocabulary, fp32, CPU) of the next tokens; extends the cache."""
        started_s = time.monotonic()
        inputs = torch.tensor([ids], device=self._device)
        output = self._model(inputs, past_key_values=cache, use_cache=True)
        logits: torch.Tensor = output.logits[0].float().cpu()
        self.meter.forward_s += time.monotonic() - started_s
        return logits


class SelectingGate(nn.Module):
    """The published gate, followed by the selection policy."""

    def __init__(self, gate: nn.Module, dispatcher: Dispatcher, trunk: Trunk) -> None:
        super().__init__()
        self.weight = gate.weight
        self._top_k = int(gate.top_k)  # type: ignore[arg-type]  # nn.Module types any attribute
        self._dispatcher = dispatcher
        self._trunk = trunk

    def forward(self, hidden: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Logits (n × E), weights and expert indices (n × k) of hidden states (n × m)."""
        meter = self._trunk.meter
        started_s = time.monotonic()
        logits = nn.functional.linear(hidden, self.weight)  # type: ignore[arg-type]
        gated_s = time.monotonic()
        chosen = topk(logits, self._top_k)
        self._dispatcher.take_in()
        reachable = self._dispatcher.reachable()
        kept = without(chosen, logits, reachable.to(logits.device))
        self._dispatcher.count_left_out(chosen.index.cpu(), reachable, meter)
        ended_s = time.monotonic()
        meter.gate_s += gated_s - started_s
        meter.selection_s += ended_s - gated_s
        meter.moe_s += ended_s - started_s
        return logits, kept.weight, kept.index


class RemoteExperts(nn.Module):
    """One layer's experts, on the devices."""

    def __init__(self, layer: int, dispatcher: Dispatcher, trunk: Trunk) -> None:
        super().__init__()
        self._layer = layer
        self._dispatcher = dispatcher
        self._trunk = trunk

    def forward(
        self, hidden: torch.Tensor, index: torch.Tensor, weight: torch.Tensor
    ) -> torch.Tensor:
        """Σ weight · expert(hidden), n × m."""
        meter = self._trunk.meter
        return self._dispatcher.layer(self._layer, hidden, index, weight, meter)
