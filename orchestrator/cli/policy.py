"""`wdmoe policy`: the selection policies there are, which is in force, and switching it."""

from __future__ import annotations

import json
import math
from typing import Annotated, Any

import typer
from pydantic.fields import FieldInfo
from pydantic_core import to_jsonable_python

from orchestrator import selection
from orchestrator.cli import common
from orchestrator.cli.common import Json
from orchestrator.errors import InputError
from orchestrator.results import schema
from orchestrator.selection import Policy
from orchestrator.sweep.plan import value_of

app = typer.Typer(no_args_is_help=True, help="Expert selection policies.")


@app.command("list")
def list_policies(as_json: Json = False) -> None:
    """The policies there are, and their parameters: NAME=DEFAULT, and what is allowed."""
    rows = [_describe(name) for name in selection.names()]
    if as_json:
        common.print_json(rows)
        return
    common.print_table(
        ["Policy", "What it does", "Parameters"],
        [
            [
                row["name"],
                row["error"] or row["summary"],
                "\n".join(map(_parameter, row["parameters"])) or "–",
            ]
            for row in rows
        ],
    )


@app.command()
def show(as_json: Json = False) -> None:
    """The policy in force and all its parameters."""
    status = common.ask_orchestrator("/status")
    policy = status["policy"]
    if as_json:
        shown = {**policy, "label": schema.Policy.model_validate(policy).label}
        common.print_json({**shown, "epoch": status["epoch"], "apply_at_s": status["apply_at_s"]})
        return
    typer.echo(_in_force(status))
    for name, value in policy["params"].items():
        typer.echo(f"  {name} {value if isinstance(value, str) else json.dumps(value)}")


@app.command()
def use(
    name: Annotated[str, typer.Argument(metavar="NAME", help="One of `wdmoe policy list`.")],
    theta: Annotated[
        float | None, typer.Option(metavar="X", help="θ of wlr: an expert is dropped when κ ≤ θ.")
    ] = None,
    max_drops: Annotated[
        int | None, typer.Option(metavar="N", help="Experts that wlr drops from a token at most.")
    ] = None,
    strict: Annotated[
        bool | None, typer.Option("--strict/--no-strict", help="wlr drops when κ < θ.")
    ] = None,
    latency: Annotated[
        str | None,
        typer.Option(metavar="SOURCE", help="Latency: analytic, compute, measured, or larger."),
    ] = None,
    candidates: Annotated[
        int | None, typer.Option(metavar="N", help="Heaviest experts that channel chooses from.")
    ] = None,
    param: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="A parameter of another policy.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Put a policy into force from the next request on; what is not given is at its default."""
    options = {
        "theta": theta,
        "max_drops": max_drops,
        "strict": strict,
        "latency": latency,
        "candidates": candidates,
    }
    params: dict[str, Any] = {key: value for key, value in options.items() if value is not None}
    params |= dict(map(_named, param or []))
    for key, value in params.items():
        if isinstance(value, float) and not math.isfinite(value):  # JSON has no word for it
            raise InputError(f"{key} is {value}; allowed: a finite number")
    status = common.ask_orchestrator("/policy", {"name": name, "params": params})
    if as_json:
        common.print_json(status)
    else:
        typer.echo(_in_force(status))


def _in_force(status: dict[str, Any]) -> str:
    label = schema.Policy.model_validate(status["policy"]).label
    return f"in force: {label}, epoch {status['epoch']}"


def _named(text: str) -> tuple[str, Any]:
    """NAME=VALUE, the value a number, true or false if it looks like one."""
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise InputError(f"--param is {text!r}; allowed: NAME=VALUE")
    return name, value_of(value)


def _describe(name: str) -> dict[str, Any]:
    try:
        policy = selection.load(name)
    except InputError as error:  # somebody's own file; the others are as good as before
        return {"name": name, "summary": "", "parameters": [], "error": str(error)}
    return {
        "name": name,
        "summary": policy.summary,
        "parameters": _parameters(policy),
        "error": None,
    }


def _parameters(policy: type[Policy]) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "required": field.is_required(),
            "default": None if field.is_required() else _default(field),
            "allowed": policy.allowed(name),
            "description": field.description,
        }
        for name, field in policy.model_fields.items()
    ]


def _default(field: FieldInfo) -> Any:
    """As JSON has it."""
    return to_jsonable_python(field.get_default(call_default_factory=True), fallback=str)


def _parameter(parameter: dict[str, Any]) -> str:
    name, default = parameter["name"], parameter["default"]
    if not parameter["required"]:
        name += f"={default if isinstance(default, str) else json.dumps(default)}"
    return f"{name} ({parameter['allowed']})"
