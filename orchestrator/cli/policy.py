"""`wdmoe policy`: list the selection policies, show the one in force, and switch."""

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
from orchestrator.contracts.http import Status
from orchestrator.contracts.policy import PolicySpec
from orchestrator.errors import InputError, short
from orchestrator.selection import Policy
from orchestrator.sweep.plan import value_of

app = typer.Typer(no_args_is_help=True, help="Expert selection policies.")


@app.command("list")
def list_policies(as_json: Json = False) -> None:
    """List the policies and their parameters: NAME=DEFAULT and the allowed values."""
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
    """Show the policy in force and all its parameters."""
    with common.client() as client:
        status = client.status()
    policy = status.policy
    if as_json:
        shown = {**policy.model_dump(), "label": policy.label}
        common.print_json({**shown, "epoch": status.epoch, "apply_at_s": status.apply_at_s})
        return
    typer.echo(_in_force(status))
    for name, value in policy.params.items():
        typer.echo(f"  {name} {value if isinstance(value, str) else json.dumps(value)}")


@app.command()
def use(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="A name that `wdmoe policy list` shows.")
    ],
    theta: Annotated[
        float | None, typer.Option(metavar="X", help="θ of wlr: an expert is dropped when κ ≤ θ.")
    ] = None,
    max_drops: Annotated[
        int | None, typer.Option(metavar="N", help="Most experts wlr drops from a token.")
    ] = None,
    strict: Annotated[
        bool | None, typer.Option("--strict/--no-strict", help="wlr drops when κ < θ.")
    ] = None,
    latency: Annotated[
        str | None,
        typer.Option(metavar="SOURCE", help="Latency: analytic, compute, measured, or larger."),
    ] = None,
    candidates: Annotated[
        int | None,
        typer.Option(metavar="N", help="channel: number of heaviest experts to choose from."),
    ] = None,
    param: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="A parameter of another policy.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Put a policy into force from the next request on; other parameters get their defaults."""
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
        if isinstance(value, float) and not math.isfinite(value):  # JSON cannot express it
            raise InputError(f"{key} is {value}; allowed: a finite number")
        if not isinstance(value, bool | int | float | str):
            raise InputError(f"{key} is {short(value)}; allowed: a number, true, false or a text")
    with common.client() as client:
        status = client.use_policy(PolicySpec(name=name, params=params))
    if as_json:
        common.print_json(status.model_dump())
    else:
        typer.echo(_in_force(status))


def _in_force(status: Status) -> str:
    return f"in force: {status.policy.label}, epoch {status.epoch}"


def _named(text: str) -> tuple[str, Any]:
    """Parse NAME=VALUE; the value becomes a number, true or false if it looks like one."""
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise InputError(f"--param is {text!r}; allowed: NAME=VALUE")
    return name, value_of(value)


def _describe(name: str) -> dict[str, Any]:
    try:
        policy = selection.load(name)
    except InputError as error:  # in a user's own file; the other policies still work
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
    """Return a parameter's default as JSON."""
    return to_jsonable_python(field.get_default(call_default_factory=True), fallback=str)


def _parameter(parameter: dict[str, Any]) -> str:
    name, default = parameter["name"], parameter["default"]
    if not parameter["required"]:
        name += f"={default if isinstance(default, str) else json.dumps(default)}"
    return f"{name} ({parameter['allowed']})"
