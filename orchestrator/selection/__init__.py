"""Expert selection: from a layer's gate logits to the experts that are used, and their weights.

    Gate: logits (n × E), latency (E) ──► Policy.select ──► Selection (n × k) ──► the devices

A policy is one file in this folder that bears its name and holds one subclass of `Policy`; its
fields are its parameters. To check those, the orchestrator needs no torch: policies work with the
methods of the tensors they are given.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import math
import pkgutil
import traceback
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from orchestrator.errors import InputError
from orchestrator.radio.profile_schema import short

if TYPE_CHECKING:
    import torch

# Where t of Eq. 6 comes from: channel state and speeds, speeds alone (a baseline that knows nothing
# of the radio), what was measured, the larger of analytic and measured.
LatencySource: TypeAlias = Literal["analytic", "compute", "measured", "larger"]


@dataclass(frozen=True)
class Gate:
    """What a policy decides on: the n tokens that a layer is about to process.

    Attributes:
        logits: the gate's, n × E.
        k: how many experts the model as published uses for a token.
        latency_s: t_{j,q} of Eq. 6 [s], one token's, by expert: fp64, shape (E,), where the logits
            are. Infinite in outage, 0 where nothing is shaped. None unless the policy is a
            `LatencyPolicy`.
        generator: draws for this sequence, the same whenever its request is repeated.
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
        weight: what their outputs are multiplied with, fp32, n × k; sums to 1, 0 for "none".
        candidates: expert numbers before any was dropped, n × k.
    """

    index: torch.Tensor
    weight: torch.Tensor
    candidates: torch.Tensor


class Policy(BaseModel, ABC):
    """A way to select experts; its fields are its parameters, checked when it is made.

    Attributes:
        name: its file's.
        summary: its docstring's first line.
        draws: whether it uses the generator; then it selects for one sequence at a time.
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
        """The experts of a layer's tokens, whether or not they can be reached."""

    @property
    def label(self) -> str:
        """Its name, and the parameters that have to be given or are not at their defaults."""
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
        """What a parameter may be: `0 to 0.5`."""
        return _allowed(cls.model_json_schema()["properties"][parameter])


class LatencyPolicy(Policy):
    """A policy that is told what a token costs on each device."""

    latency: LatencySource = Field(default="analytic", description="where t of Eq. 6 comes from")


def names() -> list[str]:
    """Every policy there is, one a file of this folder."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def load(name: str) -> type[Policy]:
    """A policy's class; InputError if there is none of this name, or its file is not in order."""
    if name not in names():
        raise InputError(f"policy {short(name)} is unknown; allowed: {', '.join(names())}")
    module_name = f"{__name__}.{name}"
    spec = importlib.util.find_spec(module_name)
    file = str(spec.origin if spec else None)
    try:
        found = _policies(importlib.import_module(module_name))
        for policy in found:
            policy.model_rebuild()  # where a field's type is not defined, it says so now
            policy.model_json_schema()  # or where nobody could be told what is allowed
            for field in policy.model_fields.values():
                field.get_default(call_default_factory=True)
    except (Exception, SystemExit) as error:  # whatever running somebody's file may raise
        raise InputError(f"policy {name}: {told(error, file)}") from None
    if len(found) != 1:
        raise InputError(
            f"policy {name}: {file}: has {len(found)} subclasses of Policy; allowed: exactly one"
        )
    if inspect.isabstract(found[0]):
        raise InputError(f"policy {name}: {file}: {found[0].__name__} has no method select")
    return found[0]


def find(name: str, params: Mapping[str, Any]) -> Policy:
    """The policy of this name with these parameters; InputError in one line if there is none."""
    policy = load(name)
    try:
        return policy.model_validate(dict(params))
    except ValidationError as error:
        raise InputError(f"policy {name}{_fault(policy, error)}") from None
    except Exception as error:  # from a check that the file brings along
        raise InputError(f"policy {name}: {told(error, inspect.getfile(policy))}") from None


def weights(logits: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """The gate's weights renormalised over the experts in index (n × k), fp32; 0 for "none".

    A softmax over their logits alone: the same, and of use where every weight is too small for it.
    A row without any expert is not a number.
    """
    none = index == logits.shape[-1]
    chosen = logits.float().gather(-1, index.masked_fill(none, 0))
    return chosen.masked_fill(none, -math.inf).softmax(-1)


def without(selection: Selection, logits: torch.Tensor, reachable: torch.Tensor) -> Selection:
    """Leave out unreachable experts and renormalise; a token left with none gets its best other.

    `logits` is n × E, `reachable` a bool vector of E. With every expert reachable the selection
    comes back as it is, and so do rows that lose none, bit for bit. With none reachable, every slot
    is empty.
    """
    if bool(reachable.all()):
        return selection
    none = reachable.numel()
    usable = reachable.new_zeros(none + 1)
    usable[:none] = reachable
    index = selection.index.masked_fill(~usable[selection.index], none)
    candidates = selection.candidates.clone()
    if bool(reachable.any()):
        bereft = (index == none).all(dim=-1)
        best = logits.masked_fill(~reachable, -math.inf).argmax(dim=-1)[bereft]
        # In a slot of its own if it was a candidate that the policy had dropped, else in the first.
        slot = (candidates[bereft] == best[:, None]).int().argmax(dim=-1)
        index[bereft, slot] = candidates[bereft, slot] = best
    lost_none = (index == selection.index).all(dim=-1, keepdim=True)
    weight = selection.weight.where(lost_none, weights(logits, index)).masked_fill(index == none, 0)
    return Selection(index, weight, candidates)


def told(error: BaseException, file: str) -> str:
    """An error in a policy's file, or in what that file calls, in one line: where, and what."""
    if isinstance(error, SyntaxError) and error.lineno:
        where, message = f"{error.filename}, line {error.lineno}", error.msg
    else:
        frames = traceback.extract_tb(error.__traceback__)
        lines = [frame.lineno for frame in frames if frame.filename == file]
        where, message = f"{file}, line {lines[-1]}" if lines else file, str(error)
    text = " ".join(message.split())
    return f"{where}: {type(error).__name__}: {text if len(text) <= 200 else text[:200] + '…'}"


def _policies(module: ModuleType) -> list[type[Policy]]:
    """Those that a module defines itself."""
    classes = {item for item in vars(module).values() if isinstance(item, type)}
    own = [item for item in classes if item.__module__ == module.__name__]
    return [item for item in own if issubclass(item, Policy)]


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value).lower()


def _fault(policy: type[Policy], error: ValidationError) -> str:
    """The first thing that is wrong: parameter, value, what is allowed."""
    fault = error.errors()[0]
    if not fault["loc"]:  # a check of its own, of parameters that do not go together
        return f": {fault['msg'].removeprefix('Value error, ')}"
    field = str(fault["loc"][0])
    if fault["type"] == "extra_forbidden":
        has = ", ".join(policy.model_fields) or "none"
        return f" has no parameter {short(field).strip(chr(39))}; allowed: {has}"
    is_what = "missing" if fault["type"] == "missing" else short(fault["input"])
    return f": {field} is {is_what}; allowed: {policy.allowed(field)}"


def _allowed(schema: Mapping[str, Any]) -> str:
    """A parameter's JSON schema in words."""
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
