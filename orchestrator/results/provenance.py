"""What produced a run: the code, the host, and what the stack says it runs."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from datetime import datetime
from importlib.metadata import version
from pathlib import Path

from orchestrator.process.build import source
from orchestrator.process.root import ROOT
from orchestrator.prompts.prompt_sets import PromptSet
from orchestrator.results.schema import (
    Arrivals,
    Build,
    Fading,
    Health,
    Orchestrator,
    PromptsUsed,
    Run,
    Stack,
)

# What the command line itself runs on; torch is the services' matter.
PACKAGES = ("wdmoe", "httpx", "numpy", "pydantic", "scipy")

_BASE_STATION = (
    *("wire_dtype", "compute_dtype", "device_timeout_s", "curve", "torch_device"),
    "tcp_congestion_control",
)


def describe(
    prompts: PromptSet,
    stack: Stack,
    *,
    shuffle_seed: int | None = None,
    arrivals: Arrivals | None = None,
    warmup: int = 0,
    routing: bool = False,
    fading: Fading | None = None,
) -> Run:
    """The record of a run that starts now; without `arrivals`, one request after another."""
    return Run(
        command=sys.argv,
        started_at=datetime.now().astimezone().isoformat(timespec="milliseconds"),
        git_revision=git_revision(ROOT),
        source=source(),
        versions={"python": platform.python_version()} | {name: version(name) for name in PACKAGES},
        host={"name": platform.node(), "machine": platform.machine(), "cpus": os.cpu_count()},
        kernel=platform.release(),
        prompts=PromptsUsed(
            name=prompts.name,
            path=str(prompts.path),
            sha256=prompts.sha256,
            items=len(prompts.prompts),
            template=prompts.template,
            shuffle_seed=shuffle_seed,
        ),
        base_station=stack.base_station,
        orchestrator=stack.orchestrator,
        channel=stack.channel,
        arrivals=arrivals or Arrivals(),
        warmup=warmup,
        routing=routing,
        fading=fading,
    )


def of_stack(stack: Stack) -> dict[str, object]:
    """What numbers depend on beside prompts, profile and policy."""
    station, links = stack.base_station, stack.channel.links
    devices = sorted({device.build for device in station.devices.values() if device.build})
    return {
        "base_station.model": station.model.fingerprint,
        **{f"base_station.{name}": getattr(station, name) for name in _BASE_STATION},
        **_build("base_station", station.build),
        "base_station.devices.build": " | ".join(devices) or None,
        **_build("orchestrator", stack.orchestrator.build),
        **{f"channel.links.{link.device}.backend": link.backend for link in links},
    }


def _build(name: str, build: Build | None) -> dict[str, object]:
    if build is None:
        return {}
    parts = {"version": build.version, "python": build.python, "source": build.source}
    parts |= {f"packages.{package}": number for package, number in build.packages.items()}
    return {f"{name}.build.{part}": value for part, value in parts.items()}


def code_warnings(health: Health, orchestrator: Orchestrator, checkout: str) -> list[str]:
    """What is wrong with the code in the containers, in a line each.

    Args:
        checkout: digest of the source of the commands that are used with them.
    """
    warnings = []
    for who, built in (
        ("base station", health.build),
        ("orchestrator", orchestrator.build),
    ):
        if built is None or built.source != checkout:
            runs = "other source" if built is None else f"source {built.source}"
            warnings.append(
                f"the {who} runs {runs}, this checkout has {checkout}: `wdmoe up` builds that and "
                "replaces the containers"
            )
    others: dict[str, list[str]] = {}
    for q, device in health.devices.items():
        if device.build is not None and device.build != health.device_build:
            others.setdefault(device.build, []).append(f"device-{q}")
    return warnings + [
        f"{', '.join(names)}: not the base station's build ({health.device_build}) but {built}"
        for built, names in others.items()
    ]


def git_revision(folder: Path) -> str | None:
    """The commit of a checkout, `-dirty` behind it if files differ; None if it is not one.

    A package installed somewhere inside another project's checkout has no revision.
    """
    if not (folder / ".git").exists():
        return None
    command = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        done = subprocess.run([*command, "--exclude=*"], capture_output=True, text=True)
    except FileNotFoundError:
        return None
    return done.stdout.strip() or None
