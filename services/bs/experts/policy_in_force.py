"""The selection policy in force, as the orchestrator announces it."""

from __future__ import annotations

import inspect

import torch

from orchestrator import selection
from orchestrator.contracts.channel_state import PolicyState
from orchestrator.errors import InputError
from orchestrator.metrics import BsMetrics
from orchestrator.moe.checkpoint import ModelInfo
from orchestrator.selection import Gate, LatencyPolicy, Policy, Selection
from orchestrator.selection.registry import error_line

# Tokens that a policy is tried with.
_TOKENS = 3


class PolicyInForce:
    """The newest announced policy that passed a trial; one that fails changes nothing."""

    def __init__(self, info: ModelInfo, device: torch.device, metrics: BsMetrics) -> None:
        self._announced = PolicyState()
        self._policy = selection.find(self._announced.name, self._announced.params)
        self._info = info
        self._device = device
        self._metrics = metrics

    def of(self, announced: PolicyState) -> Policy:
        """Return the announced policy, or the last one that passed its trial."""
        if announced != self._announced:
            self._announced = announced
            try:
                policy = selection.find(announced.name, announced.params)
                self._try(policy)
                self._policy = policy
            except InputError as error:
                print(f"policy refused, {self._policy.label} stays: {error}", flush=True)
                self._metrics.refused_messages_total.labels("policy").inc()
        return self._policy

    def _try(self, policy: Policy) -> None:
        """Select for tokens with equal gate weights and equal latencies."""
        experts, k = self._info.experts, self._info.top_k
        latency_s = torch.ones(experts, dtype=torch.float64, device=self._device)
        gate = Gate(
            logits=torch.zeros(_TOKENS, experts, device=self._device),
            k=k,
            latency_s=latency_s if isinstance(policy, LatencyPolicy) else None,
            generator=torch.Generator(self._device).manual_seed(0),
        )
        try:
            _check(policy.select(gate), k, experts)
        except Exception as error:  # whatever a user's file may raise
            line = error_line(error, inspect.getfile(type(policy)))
            raise InputError(f"policy {policy.name}: {line}") from None


def _check(chosen: Selection, k: int, experts: int) -> None:
    """Raise ValueError if a selection has a wrong shape, type or value."""
    for name, most in (("index", experts), ("candidates", experts - 1), ("weight", None)):
        values: torch.Tensor = getattr(chosen, name)
        if values.shape != (_TOKENS, k):
            raise ValueError(f"{name} has shape {tuple(values.shape)}; allowed: {_TOKENS, k}")
        if most is None:
            if not bool(values.isfinite().all()):
                raise ValueError(f"{name} has values that are not finite")
        elif values.dtype != torch.int64 or not 0 <= int(values.min()) <= int(values.max()) <= most:
            raise ValueError(f"{name} is {values.tolist()}; allowed: whole numbers, 0 to {most}")
