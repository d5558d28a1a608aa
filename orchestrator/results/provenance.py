"""The provenance of a run: the code, the host, and what the stack reports that it runs."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from datetime import datetime
from importlib.metadata import version
from pathlib import Path

from orchestrator.contracts.http import Build, Health, Orchestrator
from orchestrator.process.build import source
from orchestrator.process.root import ROOT
from orchestrator.prompts.prompt_sets import PromptSet
from orchestrator.results.schema import Arrivals, Fading, PromptsUsed, Run, Stack

# Packages of the command line itself; torch belongs to the services.
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
    """Return the record of a run that starts now; without `arrivals`, requests are sequential."""
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
    """Return what results depend on beside prompts, profile and policy."""
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
    """Return a warning for each fault of the code in the containers.

    Args:
        checkout: digest of the source of the commands in use.
    """
    warnings = []
    for name, build in (
        ("base station", health.build),
        ("orchestrator", orchestrator.build),
    ):
        if build is None or build.source != checkout:
            runs = "other source" if build is None else f"source {build.source}"
            warnings.append(
                f"the {name} runs {runs}, this checkout has {checkout}: `wdmoe up` builds that and "
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
    """Return the commit of a checkout, with `-dirty` if files differ; None if it is no checkout.

    A package installed inside another project's checkout has no revision.
    """
    if not (folder / ".git").exists():
        return None
    command = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        process = subprocess.run([*command, "--exclude=*"], capture_output=True, text=True)
    except FileNotFoundError:
        return None
    return process.stdout.strip() or None
