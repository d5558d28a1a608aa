"""`wdmoe up` and `wdmoe down`: the stack of docker-compose.yml, through Docker's own compose."""

from __future__ import annotations

import json
import socket
import subprocess
import time
from pathlib import Path
from typing import Annotated, Any

import httpx
import typer

from orchestrator.cli.common import Json, print_json
from orchestrator.errors import InputError, StackError

# Compose reads docker-compose.yml and .env in the folder it runs in.
ROOT = Path(__file__).resolve().parents[2]
# How long a registry may take to say that it has an image.
REGISTRY_TIMEOUT_S = 15
# The engine may take a moment to let go of a container that was killed, and of its network.
DOWN_TRIES = 5
# What engine 20.10 says of a network without containers once it has lost count of its endpoints.
MISCOUNT = "has active endpoints"
# What stopping one container, or removing all of them, may take before it is tried again.
DOWN_TIMEOUT_S = 60


def up(
    timeout_s: Annotated[
        int, typer.Option(min=1, help="Seconds until every service has to be ready.")
    ] = 300,
    as_json: Json = False,
) -> None:
    """Start the stack and wait until every service is ready."""
    services = _services()
    _check_model(services)
    _check_ports(services)
    left_out = [name for name, service in services.items() if not _obtainable(service)]
    for name in left_out:
        typer.echo(f"{name}: no image registry answers; the stack runs without it", err=True)
    started = [name for name in services if name not in left_out]
    urls = {name: f"http://127.0.0.1:{port}" for name in started for port in _ports(services[name])}
    began = time.monotonic()
    done = _compose("up", "-d", *started)
    if done.returncode:
        raise StackError(f"docker compose up: {_last_line(done.stderr)}")
    _wait(urls, began + timeout_s)
    if as_json:
        print_json({"services": started, "left_out": left_out, "urls": urls})
        return
    for name, url in urls.items():
        typer.echo(f"{name:<13} {url}")


def down(as_json: Json = False) -> None:
    """Stop the stack; no container, network or volume of it stays."""
    containers = _containers()
    # One after another: Docker Engine 20.10 miscounts a network's endpoints when many containers
    # leave it at once, and cannot remove the network any more.
    for container in containers:
        _patiently("stop", container["Name"])
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
        print_json({"removed": sorted(container["Service"] for container in containers)})


def _patiently(*arguments: str) -> str | None:
    """Run docker for at most DOWN_TIMEOUT_S; what went wrong, if anything."""
    try:
        done = _docker(*arguments, timeout_s=DOWN_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        return f"no end after {DOWN_TIMEOUT_S} s"
    return _last_line(done.stderr) if done.returncode else None


def _compose(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `docker compose` on the project's own file, wherever the command was given."""
    if not (ROOT / "docker-compose.yml").is_file():
        raise StackError(f"{ROOT} has no docker-compose.yml: run wdmoe from a checkout's .venv")
    return _docker("compose", *arguments)


def _docker(*arguments: str, timeout_s: float | None = None) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            ["docker", *arguments],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout_s,
        )
    except FileNotFoundError:
        raise StackError("docker is not installed: run ./setup.sh") from None


def _services() -> dict[str, dict[str, Any]]:
    """The services as compose understands its files, .env and the environment."""
    if _docker("info").returncode:
        raise StackError("the Docker Engine does not answer (docker info): run ./setup.sh")
    done = _compose("config", "--format", "json")
    if done.returncode:
        raise StackError(f"docker compose config: {_last_line(done.stderr)}")
    services: dict[str, dict[str, Any]] = json.loads(done.stdout)["services"]
    return services


def _check_model(services: dict[str, dict[str, Any]]) -> None:
    """Docker would make an empty folder of one that is missing, and the BS would fail late."""
    folder = next(
        Path(volume["source"])
        for volume in services["bs"]["volumes"]
        if volume["target"] == "/model"
    )
    from orchestrator.checkpoint import Checkpoint  # torch takes seconds, and only `up` needs it

    try:
        experts = Checkpoint(folder).info.experts
    except InputError as error:
        raise InputError(f"WDMOE_MODEL: {error}") from None
    devices = int(services["bs"]["environment"]["WDMOE_DEVICES"])
    if experts != devices:
        raise InputError(
            f"WDMOE_MODEL: {folder} has {experts} experts; allowed: {devices}, one a device"
        )


def _check_ports(services: dict[str, dict[str, Any]]) -> None:
    """Refuse a published port that something other than this stack listens on."""
    own = {
        publisher["PublishedPort"]
        for container in _containers()
        for publisher in container["Publishers"] or []
    }
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


def _obtainable(service: dict[str, Any]) -> bool:
    """Whether the service's image is here, is built here, or a registry offers it."""
    image = service["image"]
    if service.get("pull_policy") == "never" or not _docker("image", "inspect", image).returncode:
        return True
    try:
        offer = _docker("manifest", "inspect", image, timeout_s=REGISTRY_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        return False
    return not offer.returncode


def _wait(urls: dict[str, str], deadline_s: float) -> None:
    """Wait until all services are ready; StackError for one that ended, or is late.

    The services themselves are asked: the engine runs its health checks too seldom to wait for, so
    that they do not disturb what the testbed measures.
    """
    while missing := _not_ready(urls):
        ended = [c for c in _containers() if c["State"] in ("exited", "dead")]
        if ended:
            raise StackError("; ".join(f"{c['Service']}: {_why(c)}" for c in ended))
        if time.monotonic() > deadline_s:
            late = [c for c in _containers() if c["Service"] in missing]
            said = "; ".join(f"{c['Service']}: {_why(c)}" for c in late)
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


def _containers() -> list[dict[str, Any]]:
    """The stack's containers, stopped ones too."""
    done = _compose("ps", "--all", "--format", "json")
    if done.returncode:
        raise StackError(f"docker compose ps: {_last_line(done.stderr)}")
    return [json.loads(line) for line in done.stdout.splitlines()]


def _why(container: dict[str, Any]) -> str:
    """What a container says for itself."""
    logs = _compose("logs", "--no-log-prefix", "--tail", "1", container["Service"]).stdout
    return f"{container['Status']}: {_last_line(logs)}"


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1].strip() if lines else "no output"
