"""`wdmoe status`: the state of the stack and of its links."""

from __future__ import annotations

import typer
from pydantic import ValidationError

from orchestrator.cli import common
from orchestrator.cli.common import Json
from orchestrator.contracts.http import Device, Health, Link, Replay, Status
from orchestrator.contracts.verification import Verification
from orchestrator.errors import StackError
from orchestrator.process.build import source
from orchestrator.results.provenance import code_warnings


def status(as_json: Json = False) -> None:
    """Show what runs, the state requested of each link, and the state its device applied."""
    fault: StackError | None = None
    health: Health | None = None
    warnings: list[str] = []
    with common.client() as client:
        found, orchestrator = client.status(), client.orchestrator()
        try:
            health = client.health(unwell=True)
            warnings = code_warnings(health, orchestrator, source())
            if health.status != "ok":
                fault = StackError(f"the base station: {health.status}")
        except StackError as error:  # the links are still worth showing
            fault = error
    if as_json:
        bs = None if health is None else health.model_dump()
        common.print_json({"orchestrator": found.model_dump(), "bs": bs, "warnings": warnings})
    else:
        _print(found, health)
        common.warn(warnings)
    if fault is not None:
        raise fault


def _print(found: Status, health: Health | None) -> None:
    typer.echo(f"model    {_model(health)}")
    typer.echo(
        f"profile  {found.profile} (sha256 {found.profile_sha256[:12]}), seed {found.seed}, "
        f"epoch {found.epoch}, interval {found.interval}"
    )
    if found.degraded:
        typer.echo("         DEGRADED: no netem here, so delay, jitter and loss are left out")
    typer.echo(f"policy   {found.policy.label}")
    typer.echo(f"verified {_verified(found)}")
    if found.replay is not None:
        typer.echo(f"replay   {_replay(found.replay)}")
    devices = health.devices if health else {}
    common.print_table(
        ["Device", "At the BS", "Backend", "Requested down", "Requested up", "Applied", "Fault"],
        [
            [
                f"device-{link.device}",
                _at_bs(devices.get(str(link.device))),
                link.backend or "–",
                common.link(link.down),
                common.link(link.up),
                _applied(link, found.epoch),
                "; ".join(_faults(link)),
            ]
            for link in found.links
        ],
    )


def _model(health: Health | None) -> str:
    if health is None:
        return "unknown, the base station does not answer"
    model = health.model
    return (
        f"{model.name}: {model.layers} layers, {model.experts} experts, "
        f"top {model.top_k}, hidden size {model.hidden_size}; "
        f"{health.wire_dtype} on the wire, CURVE {'on' if health.curve else 'off'}"
    )


def _verified(found: Status) -> str:
    if found.verification is None:
        return "never (wdmoe link verify)"
    try:
        last = Verification.model_validate(found.verification)
    except ValidationError:
        return "by another version"
    same = last.profile_sha256 == found.profile_sha256
    return f"{last.verified_at}, under {'this profile' if same else last.profile}"


def _replay(replay: Replay) -> str:
    text = f"{replay.prompts} {replay.done} of {replay.planned}"
    if replay.failed:
        text += f", {replay.failed} failed"
    if replay.accuracy is not None:
        text += f", {100 * replay.accuracy:.1f} % right"
    if replay.running:
        return text
    return text + (", ended" if replay.done == replay.planned else ", stopped")


def _at_bs(device: Device | None) -> str:
    if device is None:
        return "unknown"
    if device.admitted:
        return "admitted"
    return f"refused: {device.refused}" if device.refused else "absent"


def _applied(link: Link, epoch: int) -> str:
    if link.applied_interval is None:
        return "nothing yet"
    if link.applied_epoch != epoch:
        return "an earlier state"
    late = link.lateness
    worst = "" if late.max_s is None else f", at most {1e3 * late.max_s:.1f} ms late"
    return f"interval {link.applied_interval}{worst}"


def _faults(link: Link) -> list[str]:
    faults = [link.fault] if link.fault else []
    queues = {"down": link.queues.down, "up": link.queues.up} if link.queues else {}
    for name, queue in queues.items():
        if queue.overflows:
            faults.append(f"{name}: {queue.overflows} packets dropped, the queue is too short")
    return faults
