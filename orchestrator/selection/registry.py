"""Registry of policies: each is a file of its name in `policies/`.

The file defines one subclass of `Policy`, whose fields are the parameters.
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

from orchestrator.errors import InputError, one_line, short
from orchestrator.selection import policies
from orchestrator.selection.policy import Policy


def names() -> list[str]:
    """Return the names of all policies, sorted."""
    return sorted(module.name for module in pkgutil.iter_modules(policies.__path__))


def load(name: str) -> type[Policy]:
    """Return the class of a policy; InputError if the name is unknown or its file is invalid."""
    if name not in names():
        raise InputError(f"policy {short(name)} is unknown; allowed: {', '.join(names())}")
    module_name = f"{policies.__name__}.{name}"
    spec = importlib.util.find_spec(module_name)
    file = str(spec.origin if spec else None)
    try:
        found = _policies(importlib.import_module(module_name))
        for policy in found:
            policy.model_rebuild()  # raises if the type of a field is undefined
            policy.model_json_schema()  # raises if a field has no description of its values
            for field in policy.model_fields.values():
                field.get_default(call_default_factory=True)
    except (Exception, SystemExit) as error:  # a policy file may raise anything
        raise InputError(f"policy {name}: {error_line(error, file)}") from None
    if len(found) != 1:
        raise InputError(
            f"policy {name}: {file}: has {len(found)} subclasses of Policy; allowed: exactly one"
        )
    if inspect.isabstract(found[0]):
        raise InputError(f"policy {name}: {file}: {found[0].__name__} has no method select")
    return found[0]


def find(name: str, params: Mapping[str, Any]) -> Policy:
    """Return the policy with these parameters; InputError in one line if either is invalid."""
    policy = load(name)
    try:
        return policy.model_validate(dict(params))
    except ValidationError as error:
        raise InputError(f"policy {name}{_fault(policy, error)}") from None
    except Exception as error:  # from a validator in the policy file
        raise InputError(f"policy {name}: {error_line(error, inspect.getfile(policy))}") from None


def error_line(error: BaseException, file: str) -> str:
    """Return place and message, in one line, of an error raised in or below a policy file."""
    if isinstance(error, SyntaxError) and error.lineno:
        where, message = f"{error.filename}, line {error.lineno}", error.msg
    else:
        frames = traceback.extract_tb(error.__traceback__)
        lines = [frame.lineno for frame in frames if frame.filename == file]
        where, message = f"{file}, line {lines[-1]}" if lines else file, str(error)
    return f"{where}: {type(error).__name__}: {one_line(message)}"


def _policies(module: ModuleType) -> list[type[Policy]]:
    """Return the policies that a module defines itself, not those it imports."""
    classes = {item for item in vars(module).values() if isinstance(item, type)}
    defined = [item for item in classes if item.__module__ == module.__name__]
    return [item for item in defined if issubclass(item, Policy)]


def _fault(policy: type[Policy], error: ValidationError) -> str:
    """Return the first fault: parameter, value, what is allowed."""
    fault = error.errors()[0]
    if not fault["loc"]:  # a validator of the policy, for combinations of parameters
        return f": {fault['msg'].removeprefix('Value error, ')}"
    field = str(fault["loc"][0])
    if fault["type"] == "extra_forbidden":
        has = ", ".join(policy.model_fields) or "none"
        return f" has no parameter {short(field).strip(chr(39))}; allowed: {has}"
    is_what = "missing" if fault["type"] == "missing" else short(fault["input"])
    return f": {field} is {is_what}; allowed: {policy.allowed(field)}"
