"""The policies there are: one file each in `policies/`, which bears the policy's name.

Such a file holds one subclass of `Policy`, whose fields are its parameters.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import pkgutil
import traceback
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from pydantic import ValidationError

from orchestrator.errors import InputError, short
from orchestrator.selection import policies
from orchestrator.selection.policy import Policy


def names() -> list[str]:
    """Every policy there is, one a file of this folder."""
    return sorted(module.name for module in pkgutil.iter_modules(policies.__path__))


def load(name: str) -> type[Policy]:
    """A policy's class; InputError if there is none of this name, or its file is not in order."""
    if name not in names():
        raise InputError(f"policy {short(name)} is unknown; allowed: {', '.join(names())}")
    module_name = f"{policies.__name__}.{name}"
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
        raise InputError(f"policy {name}: {error_line(error, file)}") from None
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
        raise InputError(f"policy {name}: {error_line(error, inspect.getfile(policy))}") from None


def error_line(error: BaseException, file: str) -> str:
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
