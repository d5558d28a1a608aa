"""`wdmoe status`: the stack, its links, and how they are shaped."""

from __future__ import annotations

from typing import Any

import typer
from pydantic import ValidationError

from orchestrator.cli import common
from orchestrator.cli.common import Json
from orchestrator.errors import StackError
from orchestrator.files.json_file import first_fault
from orchestrator.process.build import source
from orchestrator.results.provenance import code_warnings
from orchestrator.results.schema import Health, Orchestrator, Policy


def status(as_json: Json = False) -> None:
    """What runs, what each link is asked to be, and what its device has applied."""
    channel = common.ask_orchestrator("/status")
    orchestrator = common.ask_orchestrator("/healthz")
    silent: StackError | None = None
    bs: dict[str, Any] | None = None
    try:
        bs = common.ask_bs("/healthz")
    except StackError as error:  # the links are still worth showing
        silent = error
    warnings = _warnings(bs, orchestrator)
    if as_json:
        common.print_json({"orchestrator": channel, "bs": bs, "warnings": warnings})
    else:
        _print(channel, bs)
        for warning in warnings:
            typer.echo(f"warning: {warning}")
    if silent is not None:
        raise silent


def _warnings(bs: dict[str, Any] | None, orchestrator: dict[str, Any]) -> list[str]:
    if bs is None:
        return []
    try:
        said = Health.model_validate(bs), Orchestrator.model_validate(orchestrator)
    except ValidationError as error:
        raise StackError(f"/healthz: unexpected answer: {first_fault(error)}") from None
    return code_warnings(*said, source())


def _print(channel: dict[str, Any], bs: dict[str, Any] | None) -> None:
    typer.echo(f"model    {_model(bs)}")
    typer.echo(
        f"profile  {channel['profile']} (sha256 {channel['profile_sha256'][:12]}), seed "
        f"{channel['seed']}, epoch {channel['epoch']}, interval {channel['interval']}"
    )
    if channel["degraded"]:
        typer.echo("         DEGRADED: no netem here, so delay, jitter and loss are left out")
    typer.echo(f"policy   {Policy.model_validate(channel['policy']).label}")
    typer.echo(f"verified {_verified(channel)}")
    if channel["replay"] is not None:
        typer.echo(f"replay   {_replay(channel['replay'])}")
    admitted = bs["devices"] if bs else {}
    common.print_table(
        ["Device", "At the BS", "Backend", "Asked down", "Asked up", "Applied", "Fault"],
        [
            [
                f"device-{link['device']}",
                _at_bs(admitted.get(str(link["device"]))),
                link["backend"] or "–",
                common.link(link["down"]),
                common.link(link["up"]),
                _applied(link, channel["epoch"]),
                "; ".join(_faults(link)),
            ]
            for link in channel["links"]
        ],
    )


def _model(bs: dict[str, Any] | None) -> str:
    if bs is None:
        return "unknown, the base station does not answer"
    model = bs["model"]
    return (
        f"{model['name']}: {model['layers']} layers, {model['experts']} experts, "
        f"top {model['top_k']}, hidden size {model['hidden_size']}; "
        f"{bs['wire_dtype']} on the wire, CURVE {'on' if bs['curve'] else 'off'}"
    )


def _verified(channel: dict[str, Any]) -> str:
    found = channel["verification"]
    if found is None:
        return "never (wdmoe link verify)"
    same = found["profile_sha256"] == channel["profile_sha256"]
    return f"{found['verified_at']}, under {'this profile' if same else found['profile']}"


def _replay(told: dict[str, Any]) -> str:
    text = f"{told['prompts']} {told['done']} of {told['planned']}"
    if told["failed"]:
        text += f", {told['failed']} failed"
    if told["accuracy"] is not None:
        text += f", {100 * told['accuracy']:.1f} % right"
    if told["running"]:
        return text
    return text + (", ended" if told["done"] == told["planned"] else ", stopped")


def _at_bs(device: dict[str, Any] | None) -> str:
    if device is None:
        return "unknown"
    if device["admitted"]:
        return "admitted"
    return f"refused: {device['refused']}" if device["refused"] else "absent"


def _applied(link: dict[str, Any], epoch: int) -> str:
    if link["applied_interval"] is None:
        return "nothing yet"
    if link["applied_epoch"] != epoch:
        return "what was before"
    late = link["lateness"]
    worst = "" if late["max_s"] is None else f", at most {1e3 * late['max_s']:.1f} ms late"
    return f"interval {link['applied_interval']}{worst}"


def _faults(link: dict[str, Any]) -> list[str]:
    faults = [link["fault"]] if link["fault"] else []
    for name, queue in (link["queues"] or {}).items():
        if queue["overflows"]:
            faults.append(f"{name}: {queue['overflows']} packets dropped, the queue is too short")
    return faults
