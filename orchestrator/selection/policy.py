"""The interface of selection policies: their input, their output, and the base classes.

    Gate: logits (n × E), latency (E) ──► Policy.select ──► Selection (n × k) ──► the devices

The orchestrator needs no torch to check the parameters of a policy: policies only call methods of
the tensors in their input.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    import torch

# Source of t in Eq. 6: channel state and speeds, speeds alone (a baseline without knowledge of the
# radio), measurement, the larger of analytic and measured.
LatencySource: TypeAlias = Literal["analytic", "compute", "measured", "larger"]


@dataclass(frozen=True)
class Gate:
    """Input of a policy: the n tokens that a layer is about to process.

    Attributes:
        logits: gate logits, n × E.
        k: number of experts per token in the model as published.
        latency_s: t_{j,q} of Eq. 6 [s] of one token, by expert: fp64, shape (E,), on the device of
            the logits. Infinite in outage, 0 where nothing is shaped. None unless the policy is a
            `LatencyPolicy`.
        generator: random numbers for this sequence, the same whenever its request is repeated.
    """

    logits: torch.Tensor
    k: int
    latency_s: torch.Tensor | None = None
    generator: torch.Generator | None = None


@dataclass(frozen=True)
class Selection:
    """The experts chosen for n tokens.

    Attributes:
        index: expert numbers, n × k; the number of experts itself means "none".
        weight: factors of their outputs, fp32, n × k; rows sum to 1, 0 for "none".
        candidates: expert numbers before any was dropped, n × k.
    """

    index: torch.Tensor
    weight: torch.Tensor
    candidates: torch.Tensor


class Policy(BaseModel, ABC):
    """A way to select experts; its fields are its parameters, validated on creation.

    Attributes:
        name: the name of its file.
        summary: the first line of its docstring.
        draws: whether it uses the generator; then it is called for one sequence at a time.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    name: ClassVar[str]
    summary: ClassVar[str]
    draws: ClassVar[bool] = False

    @classmethod
    def __pydantic_init_subclass__(cls, **_: Any) -> None:
        cls.name = cls.__module__.rpartition(".")[2]
        cls.summary = (cls.__doc__ or "").strip().partition("\n")[0]

    @abstractmethod
    def select(self, gate: Gate) -> Selection:
        """Return the experts for a layer's tokens; unreachable ones are replaced afterwards."""

    @property
    def label(self) -> str:
        """The name, with the parameters that are required or differ from their defaults."""
        words = [self.name]
        fields = type(self).model_fields.items()
        for field, about in sorted(fields, key=lambda item: not item[1].is_required()):
            value = getattr(self, field)
            if about.is_required() or value != about.get_default(call_default_factory=True):
                sign = "θ" if field == "theta" else field
                words.append(sign if value is True else f"{sign}={_text(value)}")
        return " ".join(words)

    @classmethod
    def allowed(cls, parameter: str) -> str:
        """Return the allowed values of a parameter, such as `0 to 0.5`."""
        return _allowed(cls.model_json_schema()["properties"][parameter])


class LatencyPolicy(Policy):
    """A policy that receives the latency of a token on each device."""

    latency: LatencySource = Field(default="analytic", description="where t of Eq. 6 comes from")


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value).lower()


def _allowed(schema: Mapping[str, Any]) -> str:
    """Describe a parameter's JSON schema in words."""
    if "anyOf" in schema:
        return ", or ".join(_allowed(part) for part in schema["anyOf"])
    if "enum" in schema or "const" in schema:
        return ", ".join(map(str, schema.get("enum") or [schema["const"]]))
    kinds = {"boolean": "true or false", "integer": "a whole number", "number": "a number"}
    kind = kinds.get(schema.get("type", ""), "a text")
    if "minimum" in schema and "maximum" in schema:
        bounds = [f"{schema['minimum']:g} to {schema['maximum']:g}"]
    else:
        limits = {"minimum": "at least", "exclusiveMinimum": "above"}
        limits |= {"maximum": "at most", "exclusiveMaximum": "below"}
        bounds = [f"{word} {schema[key]:g}" for key, word in limits.items() if key in schema]
    return ", ".join(bounds if bounds and kind == "a number" else [kind, *bounds])
