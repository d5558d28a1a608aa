"""A selection policy, as it is requested, reported and recorded."""

from __future__ import annotations

from orchestrator import selection
from orchestrator.contracts.record import Record
from orchestrator.errors import InputError


class PolicySpec(Record):
    """A selection policy by its registered name, with all its parameters."""

    name: str
    params: dict[str, bool | int | float | str]

    @property
    def label(self) -> str:
        """The policy in a few words, as tables and warnings show it: `wlr θ=0.2`."""
        try:
            return selection.find(self.name, self.params).label
        except InputError:  # one of another version, which still has a name
            return " ".join([self.name, *(f"{key}={value}" for key, value in self.params.items())])
