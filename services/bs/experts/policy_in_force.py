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
    """Makes and tries a policy when another is announced; one that fails changes nothing."""

    def __init__(self, info: ModelInfo, device: torch.device, metrics: BsMetrics) -> None:
        self._asked = PolicyState()
        self._policy = selection.find(self._asked.name, self._asked.params)
        self._info = info
        self._device = device
        self._metrics = metrics

    def of(self, asked: PolicyState) -> Policy:
        """The policy announced, or the last one that could be used."""
        if asked != self._asked:
            self._asked = asked
            try:
                policy = selection.find(asked.name, asked.params)
                self._try(policy)
                self._policy = policy
            except InputError as error:
                print(f"policy refused, {self._policy.label} stays: {error}", flush=True)
                self._metrics.refused_messages_total.labels("policy").inc()
        return self._policy

    def _try(self, policy: Policy) -> None:
        """Select for tokens of which every expert is worth the same, each as near as the others."""
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
        except Exception as error:  # whatever somebody's file may raise
            told = error_line(error, inspect.getfile(type(policy)))
            raise InputError(f"policy {policy.name}: {told}") from None


def _check(chosen: Selection, k: int, experts: int) -> None:
    """ValueError tells what of a selection is not as it has to be."""
    for name, most in (("index", experts), ("candidates", experts - 1), ("weight", None)):
        values: torch.Tensor = getattr(chosen, name)
        if values.shape != (_TOKENS, k):
            raise ValueError(f"{name} has shape {tuple(values.shape)}; allowed: {_TOKENS, k}")
        if most is None:
            if not bool(values.isfinite().all()):
                raise ValueError(f"{name} has values that are not finite")
        elif values.dtype != torch.int64 or not 0 <= int(values.min()) <= int(values.max()) <= most:
            raise ValueError(f"{name} is {values.tolist()}; allowed: whole numbers, 0 to {most}")
