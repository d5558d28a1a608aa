"""The selection policy in force, as the orchestrator announces it."""

from __future__ import annotations

from orchestrator import selection
from orchestrator.errors import InputError
from orchestrator.metrics import BsMetrics
from orchestrator.selection import Policy
from orchestrator.state import PolicyState


class Policies:
    """Makes a policy when another one is announced; one that cannot be made changes nothing."""

    def __init__(self, metrics: BsMetrics) -> None:
        self._asked = PolicyState()
        self._policy = selection.find(self._asked.name, self._asked.params)
        self._metrics = metrics

    def of(self, asked: PolicyState) -> Policy:
        """The policy announced, or the last one that could be made."""
        if asked != self._asked:
            self._asked = asked
            try:
                self._policy = selection.find(asked.name, asked.params)
            except InputError as error:
                print(f"policy refused, {self._policy.label} stays: {error}", flush=True)
                self._metrics.refused_messages_total.labels("policy").inc()
        return self._policy
