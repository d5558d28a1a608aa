"""What produced a run: the code, the host, and what the stack says it runs."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from datetime import datetime
from importlib.metadata import version
from pathlib import Path

from orchestrator.replay.prompt_sets import PromptSet
from orchestrator.replay.records import (
    Arrivals,
    Channel,
    Fading,
    Health,
    Orchestrator,
    PromptsUsed,
    Run,
)

# What the command line itself runs on; torch is the services' matter.
PACKAGES = ("wdmoe", "httpx", "numpy", "pydantic", "scipy")
SOURCE = Path(__file__).resolve().parents[2]


def describe(
    prompts: PromptSet,
    health: Health,
    channel: Channel,
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
        git_revision=git_revision(SOURCE),
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
        base_station=health,
        channel=channel,
        arrivals=arrivals or Arrivals(),
        warmup=warmup,
        routing=routing,
        fading=fading,
    )


def code_warnings(health: Health, orchestrator: Orchestrator, checkout: str) -> list[str]:
    """What is wrong with the code in the containers, in a line each.

    Args:
        checkout: digest of the source of the commands that are used with them.
    """
    warnings = []
    for who, built in (("base station", health.build), ("orchestrator", orchestrator.build)):
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
