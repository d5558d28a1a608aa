"""The trunk: a transformers model whose experts are elsewhere.

    layer.mlp(hidden) ─► RemoteMoe   gate ─► logits ─► Selector ─► Dispatcher ─► the devices

The model is built without storage, its experts are taken out, and only then are the trunk's tensors
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
from services.bs.dispatch import Dispatcher
from services.bs.selector import Selector
from services.bs.serving import Serving


class Trunk:
    """The model's forward pass over one sequence; `serving` is the request that it is for."""

    serving: Serving

    def __init__(
        self,
        checkpoint: Checkpoint,
        selector: Selector,
        dispatcher: Dispatcher,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        """Load the trunk. InputError when the checkpoint lacks one of its tensors."""
        self.device = device
        self._config = AutoConfig.from_pretrained(checkpoint.folder)
        with torch.device("meta"):
            model = MixtralForCausalLM(self._config)
        for number, layer in enumerate(model.model.layers):
            layer.mlp = RemoteMoe(number, layer.mlp, selector, dispatcher, self)
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
    def forward(self, ids: list[int], cache: DynamicCache, serving: Serving) -> torch.Tensor:
        """Logits (len(ids) × vocabulary, fp32, CPU) of the next tokens; extends the cache."""
        started_s = time.monotonic()
        self.serving = serving
        inputs = torch.tensor([ids], device=self.device)
        output = self._model(inputs, past_key_values=cache, use_cache=True)
        logits: torch.Tensor = output.logits[0].float().cpu()
        serving.meter.forward_s += time.monotonic() - started_s
        return logits


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
        serving = self._trunk.serving
        meter = serving.meter
        entered_s = time.monotonic()
        self._dispatcher.take_in()
        started_s = time.monotonic()
        logits = nn.functional.linear(hidden[0], self.gate.weight)  # type: ignore[arg-type]
        gated_s = time.monotonic()
        choice = self._selector.select(logits, self._top_k, serving.policy, serving.generator)
        selected_s = time.monotonic()
        output = self._dispatcher.layer(self._layer, hidden[0], choice, serving)
        meter.gate_s += gated_s - started_s
        meter.selection_s += selected_s - gated_s
        meter.moe_s += time.monotonic() - entered_s
        return output[None]
