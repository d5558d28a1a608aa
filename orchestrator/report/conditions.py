"""Conditions of the runs in a report, and warnings about their numbers."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from orchestrator.contracts.http import Build
from orchestrator.contracts.verification import Verification
from orchestrator.errors import InputError, first_fault
from orchestrator.report.groups import Group, order
from orchestrator.report.load import Recorded
from orchestrator.results.run_folder import RUN
from orchestrator.results.schema import Run

NAMED = 4  # runs; for more, only their number is shown


def conditions(groups: Sequence[Group]) -> dict[str, list[str]]:
    """Return each condition with its value, or with each value and its runs where runs differ."""
    runs = {f"{group.name}, {label}": run for group in groups for label, run in group.runs.items()}
    described = {name: _describe(run) for name, run in runs.items()}
    fields = list(dict.fromkeys(field for values in described.values() for field in values))
    found = {}
    for field in fields:
        names_of: dict[str, list[str]] = {}
        for name, values in described.items():
            names_of.setdefault(values.get(field, "not recorded"), []).append(name)
        found[field] = [
            value if len(names_of) == 1 or field in _UNIQUE else f"{value} ({_count(names)})"
            for value, names in names_of.items()
        ]
    return found


def warnings(groups: Sequence[Group]) -> dict[str, str]:
    """Return each warning once, with the runs that it concerns."""
    about: dict[str, list[str]] = {}
    for group in groups:
        for label, run in group.runs.items():
            for text in run.summary.warnings:
                about.setdefault(text, []).append(f"{group.name}, {label}")
    total = sum(len(group.runs) for group in groups)
    return {
        text: "all runs" if len(names) == total > 1 else _count(names)
        for text, names in about.items()
    }


def verifications(runs: Sequence[Recorded]) -> list[Verification]:
    """Return the results of `wdmoe link verify` before the runs; InputError if one is invalid."""
    found = {}
    for recorded in runs:
        payload = recorded.run.channel.verification
        if payload is None:
            continue
        try:
            verification = Verification.model_validate(payload)
        except ValidationError as error:
            raise InputError(
                f"{recorded.path / RUN}: channel.verification is not of this version: "
                f"{first_fault(error)}"
            ) from None
        found[verification.verified_at, verification.profile] = verification
    return list(found.values())


# Fields whose values identify their runs.
_UNIQUE = ("Command", "Prompts", "Profile", "Policy")


def _describe(recorded: Recorded) -> dict[str, str]:
    run = recorded.run
    channel, station = run.channel, run.base_station
    backends = sorted({link.backend or "not reported" for link in channel.links})
    prompts = run.prompts
    prompt_parts = [f"{prompts.name}: {prompts.items}", f"sha256 {prompts.sha256[:12]}"]
    prompt_parts += [f"template {prompts.template}"] if prompts.template else []
    prompt_parts += filter(None, [order(recorded)])
    return {
        "Command": shlex.join([Path(run.command[0]).name, *run.command[1:]] if run.command else []),
        "Started": run.started_at[:10],
        "Code": _code(run),
        "Versions": ", ".join(f"{name} {number}" for name, number in run.versions.items()),
        "Containers": _containers(station.build),
        "Model": f"{station.model.name}, {station.model.layers} layers, fingerprint "
        f"{station.model.fingerprint[:12]}",
        "Prompts": ", ".join(prompt_parts),
        "Profile": f"{channel.profile}: seed of the channel {channel.seed}, sha256 "
        f"{channel.profile_sha256[:12]}",
        "Policy": channel.policy.label,
        "Arrivals": _arrivals(run),
        "Fading": "none, or not recorded" if run.fading is None else run.fading.label,
        "Links": f"{' + '.join(backends)}, congestion control {station.tcp_congestion_control}",
        "Wire": f"{station.wire_dtype}, CURVE {'on' if station.curve else 'off'}",
        "Computing": f"{station.compute_dtype or 'precision not recorded'} on "
        f"{station.torch_device}, device time-out {_seconds(station.device_timeout_s)}",
        "Host": f"kernel {run.kernel}, {run.host.get('machine', 'unknown machine')}, "
        f"{run.host.get('cpus', '?')} CPUs",
    }


def _code(run: Run) -> str:
    """Return the source that the containers ran, and the commit of the checkout."""
    commit, build = run.git_revision or "no checkout", run.base_station.build
    if build is None:
        return f"{commit}; what the containers ran is not recorded"
    if build.source == run.source:
        return f"source {build.source}, {commit}"
    return f"source {build.source} in the containers; {run.source} in the checkout, {commit}"


def _containers(build: Build | None) -> str:
    if build is None:
        return "not recorded"
    packages = [f"{name} {number}" for name, number in build.packages.items()]
    return ", ".join([f"python {build.python}", *packages])


def _seconds(value: float | None) -> str:
    return "not recorded" if value is None else f"{value:g} s"


def _arrivals(run: Run) -> str:
    parts = []
    for field, value in run.arrivals.model_dump().items():
        if value is not None:
            shown = value[:12] if field == "trace_sha256" else value
            parts.append(f"{field.replace('_', ' ')} {shown}")
    return ", ".join([*parts, f"warm-up {run.warmup}"])


def _count(names: Sequence[str]) -> str:
    return f"{len(names)} runs" if len(names) > NAMED else "; ".join(names)
