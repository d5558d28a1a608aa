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

# Limit for a registry to answer whether it has an image.
REGISTRY_TIMEOUT_S = 15
# The engine may take a moment to release a container that was killed, and its network.
DOWN_TRIES = 5
# Error of engine 20.10 for a network without containers after it miscounted the endpoints.
MISCOUNT = "has active endpoints"
# Limit for stopping one container, or removing all of them, before another try.
DOWN_TIMEOUT_S = 60

# Services of compose's configuration, by name.
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
    with closing(Client(urls["bs"], urls["orchestrator"])) as client:
        _wait(project["name"], client, urls.get("prometheus"), began + timeout_s)
        warnings = code_warnings(client.health(), client.orchestrator(), source())
        warnings += client.profile().warnings
    warn(warnings)
    if as_json:
        print_json({"services": started, "left_out": left_out, "urls": urls, "warnings": warnings})
        return
    for name, url in urls.items():
        typer.echo(f"{name:<13} {url}")


def down(as_json: Json = False) -> None:
    """Stop the stack and remove all its containers, networks and volumes."""
    project = configuration()["name"]
    before = containers(project)
    for checkout in {container.checkout for container in before} - {ROOT}:
        if checkout.exists():  # else it cannot be stopped from there
            raise StackError(_of_another(project, checkout))
    # One after another: Docker Engine 20.10 miscounts a network's endpoints when many containers
    # leave it at once, and then cannot remove the network.
    for container in before:
        _try_docker("stop", container.name)
    for _ in range(DOWN_TRIES):
        fault = _try_docker("compose", "down", "--volumes", "--remove-orphans")
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
        "there, or give this checkout's stack another name with COMPOSE_PROJECT_NAME"
    )


def _build(services: Services) -> None:
    """Build the images, from the engine's cache where nothing has changed.

    Raises:
        StackError: they cannot be built, and the existing images have other source.
    """
    images = {service["image"] for service in services.values() if "build" in service}
    with progress_display() as progress:
        progress.add_task("building images", total=None)
        done = compose("build")
    if done.returncode:
        fault = f"docker compose build: {last_line(done.stderr)}"
        if any(_source(image) != source() for image in images):
            raise StackError(f"{fault}; --no-build starts the existing images")
        typer.echo(f"{fault}; the existing images have this checkout's source", err=True)


def _stop_outdated(services: Services, before: Sequence[Container]) -> None:
    """Stop containers whose image was rebuilt: compose would stop all at once, see `down`."""
    for container in before:
        image = services.get(container.service, {}).get("image")
        if image and container.image != _image_id(image):
            _try_docker("stop", container.name)


def _try_docker(*arguments: str) -> str | None:
    """Run docker for at most DOWN_TIMEOUT_S; return the error, None if there is none."""
    try:
        done = docker(*arguments, timeout_s=DOWN_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        return f"did not end within {DOWN_TIMEOUT_S} s"
    return last_line(done.stderr) if done.returncode else None


def _check_model(model: ModelMount, services: Services) -> list[Path]:
    """Return the model's files; InputError if base station or devices cannot use the model."""
    from orchestrator.moe import model_folder  # torch takes seconds, and only `up` needs it

    try:
        checkpoint = model_folder.check(model.folder)
    except InputError as error:
        raise InputError(f"WDMOE_MODEL: {error}") from None
    experts = checkpoint.info.experts
    devices = int(services["bs"]["environment"]["WDMOE_DEVICES"])
    if experts != devices:
        raise InputError(
            f"WDMOE_MODEL: {model.folder} has {experts} experts; allowed: {devices}, one per device"
        )
    files = model_folder.files(checkpoint)
    model.check_links(files)
    return files


def _check_ports(services: Services, before: Sequence[Container]) -> None:
    """Raise StackError if something other than this stack listens on a published port."""
    ours = {port for container in before for port in container.ports}
    for name, service in services.items():
        for port in set(_ports(service)) - ours:
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
    """Return the host's ports that a service publishes."""
    return [int(port["published"]) for port in service.get("ports", [])]


def _source(image: str) -> str | None:
    """Return the digest of the source in an image; None without source, or without the image."""
    program = "from orchestrator.process.build import source; print(source())"
    done = docker(
        "run", "--rm", "--pull", "never", "--network", "none", image, "python", "-c", program
    )
    return None if done.returncode else done.stdout.strip()


def _image_id(image: str) -> str | None:
    done = docker("image", "inspect", "--format", "{{.Id}}", image)
    return None if done.returncode else done.stdout.strip()


def _obtainable(service: dict[str, Any]) -> bool:
    """Return whether the service's image exists, is built here, or is offered by a registry."""
    image = service["image"]
    if service.get("pull_policy") == "never" or _image_id(image):
        return True
    try:
        offer = docker("manifest", "inspect", image, timeout_s=REGISTRY_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        return False
    return not offer.returncode


def _wait(project: str, client: Client, prometheus: str | None, deadline_s: float) -> None:
    """Wait until all services are ready; StackError if one has ended, or is late.

    Query the services, not the engine: its health checks are rare, so that they do not disturb
    measurements, and waiting for the next one would take too long.
    """
    with progress_display() as progress:
        task = progress.add_task("waiting", total=None)
        since_s = time.monotonic()
        while missing := _not_ready(client, prometheus, since_s):
            looked_s = time.monotonic()
            progress.update(task, description=f"waiting for {', '.join(missing)}")
            ended = [item for item in containers(project) if item.status in ("exited", "dead")]
            if ended:
                raise StackError("; ".join(map(_why, ended)))
            if time.monotonic() > deadline_s:
                late = [item for item in containers(project) if item.service in missing]
                reasons = "; ".join(map(_why, late))
                raise StackError(f"not ready in time: {reasons or ', '.join(missing)}")
            # Querying the engine takes processor time that the services need to start.
            time.sleep(max(0.5, 5 * (time.monotonic() - looked_s)))


def _not_ready(client: Client, prometheus: str | None, since_s: float) -> list[str]:
    """Return the services that are not ready.

    A device is ready once the base station has admitted it and heard of it since `since_s`: of one
    whose container was replaced, it may not have noticed yet.
    """
    try:
        client.orchestrator()
    except StackError:
        return ["orchestrator"]
    try:
        devices = client.health().devices
    except StackError:
        return ["bs"]
    waited_s = time.monotonic() - since_s
    absent = [
        f"device-{q}"
        for q, device in devices.items()
        if not device.admitted or (device.last_seen_age_s or 0.0) > waited_s
    ]
    if absent or prometheus is None:
        return absent
    try:
        answer = httpx.get(f"{prometheus}/-/ready", timeout=10, trust_env=False)
    except httpx.TransportError:
        return ["prometheus"]
    return [] if answer.is_success else ["prometheus"]


def _why(container: Container) -> str:
    """Return a container's state and the last line of its log."""
    logs = compose("logs", "--no-log-prefix", "--tail", "1", container.service).stdout
    state = container.status
    if state == "exited":
        state += f" ({container.exit_code})"
    return f"{container.service}: {state}: {last_line(logs)}"
