"""Docker, as `wdmoe up` and `wdmoe down` use it: commands, and the containers of a project.

Containers are asked of the engine, not of compose: what `compose ps` prints changed with its
version 2.21, and it does not say which checkout a container is of.
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

# Compose reads docker-compose.yml and .env in the folder it runs in.
# The oldest compose that this project's file and commands are known to work with.
COMPOSE_LEAST = (2, 20)
_LABEL = "com.docker.compose"


@dataclass(frozen=True)
class Container:
    """A container of a project; `checkout` is the folder that compose made it from.

    `image` is the id of the image that it runs, `ports` are those published now.
    """

    name: str
    service: str
    status: str
    exit_code: int
    image: str
    ports: frozenset[int]
    checkout: Path

    @classmethod
    def from_inspection(cls, found: Mapping[str, Any]) -> Container:
        """One entry of what `docker inspect` prints."""
        labels, state = found["Config"]["Labels"], found["State"]
        published = filter(None, (found["NetworkSettings"]["Ports"] or {}).values())
        return cls(
            name=found["Name"].removeprefix("/"),
            service=labels[f"{_LABEL}.service"],
            status=state["Status"],
            exit_code=state["ExitCode"],
            image=found["Image"],
            ports=frozenset(int(port["HostPort"]) for bound in published for port in bound),
            checkout=Path(labels[f"{_LABEL}.project.working_dir"]).resolve(),
        )


def containers(project: str) -> list[Container]:
    """A project's containers, stopped ones too, by name; whichever checkout they are of."""
    chosen = [f"label={_LABEL}.project={project}", f"label={_LABEL}.oneoff=False"]
    filters = [word for label in chosen for word in ("--filter", label)]
    listed = docker("ps", "--all", "--quiet", *filters)
    if listed.returncode:
        raise StackError(f"docker ps: {last_line(listed.stderr)}")
    ids = listed.stdout.split()
    if not ids:
        return []
    # Of one that has gone meanwhile nothing is printed, and the exit code says so.
    inspected = json.loads(docker("inspect", "--type", "container", *ids).stdout or "[]")
    return sorted(map(Container.from_inspection, inspected), key=lambda one: one.name)


def configuration() -> dict[str, Any]:
    """The project as compose understands its files, .env and the environment: name, services, …

    Raises:
        StackError: the engine does not answer, or compose is missing or too old, or finds a fault.
    """
    if docker("info").returncode:
        raise StackError("the Docker Engine does not answer (docker info): run ./setup.sh")
    _check_compose()
    done = compose("config", "--format", "json")
    if done.returncode:
        raise StackError(f"docker compose config: {last_line(done.stderr)}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def compose(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `docker compose` on the project's own file, wherever the command was given."""
    if not (ROOT / "docker-compose.yml").is_file():
        raise StackError(f"{ROOT} has no docker-compose.yml: run wdmoe from a checkout's .venv")
    return docker("compose", *arguments)


def docker(*arguments: str, timeout_s: float | None = None) -> subprocess.CompletedProcess[str]:
    """Run docker in the checkout; TimeoutExpired if it takes longer."""
    try:
        return subprocess.run(
            ["docker", *arguments],
            cwd=ROOT,
            # With attestations, newer builders give an image a new id though nothing changed.
            env={**os.environ, "BUILDX_NO_DEFAULT_ATTESTATIONS": "1"},
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout_s,
        )
    except FileNotFoundError:
        raise StackError("docker is not installed: run ./setup.sh") from None


def last_line(text: str) -> str:
    """The last line of what a command printed."""
    lines = text.strip().splitlines()
    return lines[-1].strip() if lines else "no output"


def _check_compose() -> None:
    needed = ".".join(map(str, COMPOSE_LEAST))
    done = docker("compose", "version", "--short")
    if done.returncode:
        raise StackError(f"docker compose is missing: install {needed} or newer, or run ./setup.sh")
    version = done.stdout.strip()
    numbers = re.match(r"v?(\d+)\.(\d+)", version)
    if numbers and tuple(map(int, numbers.groups())) < COMPOSE_LEAST:
        raise StackError(f"docker compose is {version}; allowed: {needed} or newer")
