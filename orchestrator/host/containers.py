"""Docker for `wdmoe up` and `wdmoe down`: commands, and the containers of a project.

Containers are listed by the engine, not by compose: the output of `compose ps` changed in version
2.21, and does not name the checkout of a container.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.errors import StackError
from orchestrator.process.root import ROOT

# The oldest compose that works with the file and the commands of this project.
COMPOSE_LEAST = (2, 20)
_LABEL = "com.docker.compose"


@dataclass(frozen=True)
class Container:
    """A container of a project; `checkout` is the folder in which compose created it.

    `image` is the id of its image, `ports` are the ports published now.
    """

    name: str
    service: str
    status: str
    exit_code: int
    image: str
    ports: frozenset[int]
    checkout: Path

    @classmethod
    def from_inspection(cls, inspection: Mapping[str, Any]) -> Container:
        """Create it from one entry of the output of `docker inspect`."""
        labels, state = inspection["Config"]["Labels"], inspection["State"]
        published = filter(None, (inspection["NetworkSettings"]["Ports"] or {}).values())
        return cls(
            name=inspection["Name"].removeprefix("/"),
            service=labels[f"{_LABEL}.service"],
            status=state["Status"],
            exit_code=state["ExitCode"],
            image=inspection["Image"],
            ports=frozenset(int(port["HostPort"]) for bound in published for port in bound),
            checkout=Path(labels[f"{_LABEL}.project.working_dir"]).resolve(),
        )


def containers(project: str) -> list[Container]:
    """Return the containers of a project in all checkouts, stopped ones too, sorted by name."""
    labels = [f"label={_LABEL}.project={project}", f"label={_LABEL}.oneoff=False"]
    filters = [word for label in labels for word in ("--filter", label)]
    result = docker("ps", "--all", "--quiet", *filters)
    if result.returncode:
        raise StackError(f"docker ps: {last_line(result.stderr)}")
    ids = result.stdout.split()
    if not ids:
        return []
    # A container removed meanwhile is not printed, and the exit code is ignored for that reason.
    inspections = json.loads(docker("inspect", "--type", "container", *ids).stdout or "[]")
    return sorted(map(Container.from_inspection, inspections), key=lambda item: item.name)


def configuration() -> dict[str, Any]:
    """Return the project as compose resolves its files, .env and the environment: name, services, …

    Raises:
        StackError: the engine does not answer, or compose is missing, too old, or reports a fault.
    """
    if docker("info").returncode:
        raise StackError("the Docker Engine does not answer (docker info): run ./setup.sh")
    _check_compose()
    result = compose("config", "--format", "json")
    if result.returncode:
        raise StackError(f"docker compose config: {last_line(result.stderr)}")
    project: dict[str, Any] = json.loads(result.stdout)
    return project


def compose(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `docker compose` on the file of this checkout, from any working directory."""
    if not (ROOT / "docker-compose.yml").is_file():
        raise StackError(f"{ROOT} has no docker-compose.yml: run wdmoe from a checkout's .venv")
    return docker("compose", *arguments)


def docker(*arguments: str, timeout_s: float | None = None) -> subprocess.CompletedProcess[str]:
    """Run docker in the checkout; TimeoutExpired after `timeout_s`."""
    try:
        return subprocess.run(
            ["docker", *arguments],
            cwd=ROOT,
            # With attestations, newer builders give an unchanged image a new id.
            env={**os.environ, "BUILDX_NO_DEFAULT_ATTESTATIONS": "1"},
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout_s,
        )
    except FileNotFoundError:
        raise StackError("docker is not installed: run ./setup.sh") from None


def last_line(text: str) -> str:
    """Return the last line of a command's output."""
    lines = text.strip().splitlines()
    return lines[-1].strip() if lines else "no output"


def _check_compose() -> None:
    needed = ".".join(map(str, COMPOSE_LEAST))
    result = docker("compose", "version", "--short")
    if result.returncode:
        raise StackError(f"docker compose is missing: install {needed} or newer, or run ./setup.sh")
    version = result.stdout.strip()
    numbers = re.match(r"v?(\d+)\.(\d+)", version)
    if numbers and tuple(map(int, numbers.groups())) < COMPOSE_LEAST:
        raise StackError(f"docker compose is {version}; allowed: {needed} or newer")
