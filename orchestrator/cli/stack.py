"""`wdmoe up` and `wdmoe down`: the stack of docker-compose.yml, through Docker's own compose."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import httpx
import typer

from orchestrator.cli.common import Json, print_json, warn
from orchestrator.client.client import Client
from orchestrator.errors import InputError, StackError
from orchestrator.host import readable
from orchestrator.host.containers import (
    Container,
    compose,
    configuration,
    containers,
    docker,
    last_line,
)
from orchestrator.host.model_mount import ModelMount
from orchestrator.host.progress_display import progress_display
from orchestrator.process.build import source
from orchestrator.process.root import ROOT
from orchestrator.results.provenance import code_warnings

# How long a registry may take to say that it has an image.
REGISTRY_TIMEOUT_S = 15
# The engine may take a moment to let go of a container that was killed, and of its network.
DOWN_TRIES = 5
# What engine 20.10 says of a network without containers once it has lost count of its endpoints.
MISCOUNT = "has active endpoints"
# What stopping one container, or removing all of them, may take before it is tried again.
DOWN_TIMEOUT_S = 60

# As compose understands them, by name.
Services: TypeAlias = dict[str, dict[str, Any]]


def up(
    build: Annotated[
        bool,
        typer.Option("--build/--no-build", help="Build the images first where source has changed."),
    ] = True,
    timeout_s: Annotated[
        int, typer.Option(min=1, help="Seconds until every service has to be ready.")
    ] = 300,
    as_json: Json = False,
) -> None:
    """Start the stack and wait until every service is ready."""
    model = ModelMount.find()
    os.environ.update(model.environment())  # for compose
    project = configuration()
    services = project["services"]
    before = containers(project["name"])
    for checkout in {container.checkout for container in before} - {ROOT}:
        raise StackError(_of_another(project["name"], checkout))
    model_files = _check_model(model, services)
    _check_ports(services, before)
    left_out = [name for name, service in services.items() if not _obtainable(service)]
    started = [name for name in services if name not in left_out]
    urls = {name: f"http://127.0.0.1:{port}" for name in started for port in _ports(services[name])}
    if build:
        _build(services)
    readable.check([services[name] for name in started], {model.source: model_files})
    if build:
        _stop_outdated(services, before)
    for name in left_out:
        typer.echo(f"{name}: no image registry answers; the stack runs without it", err=True)
    began = time.monotonic()
    done = compose("up", "-d", *started)
    if done.returncode:
        raise StackError(f"docker compose up: {last_line(done.stderr)}")
    _wait(project["name"], urls, began + timeout_s)
    with closing(Client(urls["bs"], urls["orchestrator"])) as client:
        warnings = code_warnings(client.health(), client.orchestrator(), source())
        warnings += client.profile().warnings
    warn(warnings)
    if as_json:
        print_json({"services": started, "left_out": left_out, "urls": urls, "warnings": warnings})
        return
    for name, url in urls.items():
        typer.echo(f"{name:<13} {url}")


def down(as_json: Json = False) -> None:
    """Stop the stack; no container, network or volume of it stays."""
    project = configuration()["name"]
    before = containers(project)
    for checkout in {container.checkout for container in before} - {ROOT}:
        if checkout.exists():  # else nobody can stop it there
            raise StackError(_of_another(project, checkout))
    # One after another: Docker Engine 20.10 miscounts a network's endpoints when many containers
    # leave it at once, and cannot remove the network any more.
    for container in before:
        _patiently("stop", container.name)
    for _ in range(DOWN_TRIES):
        fault = _patiently("compose", "down", "--volumes", "--remove-orphans")
        if fault is None:
            break
        time.sleep(1)
    else:
        if fault and MISCOUNT in fault:
            fault += "; restart the Docker Engine, which miscounted them"
        raise StackError(f"docker compose down: {fault}")
    if as_json:
        print_json({"removed": sorted(container.service for container in before)})


def _of_another(project: str, checkout: Path) -> str:
    return (
        f"the stack {project} here is of the checkout {checkout}, not of {ROOT}: run `wdmoe down` "
        "there, or give this checkout's another name with COMPOSE_PROJECT_NAME"
    )


def _build(services: Services) -> None:
    """Build the images, from the engine's cache where nothing has changed.

    Raises:
        StackError: they cannot be built, and those that are here do not have this source.
    """
    images = {service["image"] for service in services.values() if "build" in service}
    with progress_display() as progress:
        progress.add_task("building images", total=None)
        done = compose("build")
    if done.returncode:
        fault = f"docker compose build: {last_line(done.stderr)}"
        if any(_source(image) != source() for image in images):
            raise StackError(f"{fault}; --no-build starts the images that are here")
        typer.echo(f"{fault}; the images here have this checkout's source", err=True)


def _stop_outdated(services: Services, before: Sequence[Container]) -> None:
    """Stop containers whose image was built anew: compose would stop them at once, see `down`."""
    for container in before:
        image = services.get(container.service, {}).get("image")
        if image and container.image != _image_id(image):
            _patiently("stop", container.name)


def _patiently(*arguments: str) -> str | None:
    """Run docker for at most DOWN_TIMEOUT_S; what went wrong, if anything."""
    try:
        done = docker(*arguments, timeout_s=DOWN_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        return f"no end after {DOWN_TIMEOUT_S} s"
    return last_line(done.stderr) if done.returncode else None


def _check_model(model: ModelMount, services: Services) -> list[Path]:
    """The model's files; InputError for a model with which base station or devices would fail."""
    from orchestrator.moe import model_folder  # torch takes seconds, and only `up` needs it

    try:
        checkpoint = model_folder.check(model.folder)
    except InputError as error:
        raise InputError(f"WDMOE_MODEL: {error}") from None
    experts = checkpoint.info.experts
    devices = int(services["bs"]["environment"]["WDMOE_DEVICES"])
    if experts != devices:
        raise InputError(
            f"WDMOE_MODEL: {model.folder} has {experts} experts; allowed: {devices}, one a device"
        )
    files = model_folder.files(checkpoint)
    model.check_links(files)
    return files


def _check_ports(services: Services, before: Sequence[Container]) -> None:
    """Refuse a published port that something other than this stack listens on."""
    own = {port for container in before for port in container.ports}
    for name, service in services.items():
        for port in set(_ports(service)) - own:
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind(("127.0.0.1", port))
                except OSError as error:
                    variable = f"WDMOE_{name.upper()}_PORT"
                    raise StackError(
                        f"port {port} ({variable}): {error.strerror}; set {variable} to another"
                    ) from None


def _ports(service: dict[str, Any]) -> list[int]:
    """The host's ports that a service publishes."""
    return [int(port["published"]) for port in service.get("ports", [])]


def _source(image: str) -> str | None:
    """Digest of the source in an image; None if it has none, or is not here."""
    program = "from orchestrator.process.build import source; print(source())"
    done = docker(
        "run", "--rm", "--pull", "never", "--network", "none", image, "python", "-c", program
    )
    return None if done.returncode else done.stdout.strip()


def _image_id(image: str) -> str | None:
    done = docker("image", "inspect", "--format", "{{.Id}}", image)
    return None if done.returncode else done.stdout.strip()


def _obtainable(service: dict[str, Any]) -> bool:
    """Whether the service's image is here, is built here, or a registry offers it."""
    image = service["image"]
    if service.get("pull_policy") == "never" or _image_id(image):
        return True
    try:
        offer = docker("manifest", "inspect", image, timeout_s=REGISTRY_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        return False
    return not offer.returncode


def _wait(project: str, urls: dict[str, str], deadline_s: float) -> None:
    """Wait until all services are ready; StackError for one that ended, or is late.

    The services themselves are asked: the engine runs its health checks too seldom to wait for, so
    that they do not disturb what the testbed measures.
    """
    with progress_display() as progress:
        task = progress.add_task("waiting", total=None)
        while missing := _not_ready(urls):
            progress.update(task, description=f"waiting for {', '.join(missing)}")
            ended = [one for one in containers(project) if one.status in ("exited", "dead")]
            if ended:
                raise StackError("; ".join(map(_why, ended)))
            if time.monotonic() > deadline_s:
                late = [one for one in containers(project) if one.service in missing]
                said = "; ".join(map(_why, late))
                raise StackError(f"not ready in time: {said or ', '.join(missing)}")
            time.sleep(0.5)


def _not_ready(urls: dict[str, str]) -> list[str]:
    """The services that do not answer yet; a device is ready when the base station admitted it."""
    probes = {"orchestrator": "/healthz", "bs": "/healthz", "prometheus": "/-/ready"}
    for name, path in probes.items():
        if name not in urls:  # its image cannot be had
            continue
        try:
            answer = httpx.get(urls[name] + path, timeout=10, trust_env=False)
        except httpx.TransportError:
            return [name]
        if not answer.is_success:
            return [name]
        if name == "bs":
            devices = answer.json()["devices"]
            absent = [f"device-{q}" for q, device in devices.items() if not device["admitted"]]
            if absent:
                return absent
    return []


def _why(container: Container) -> str:
    """What a container says for itself."""
    logs = compose("logs", "--no-log-prefix", "--tail", "1", container.service).stdout
    state = container.status
    if state == "exited":
        state += f" ({container.exit_code})"
    return f"{container.service}: {state}: {last_line(logs)}"
