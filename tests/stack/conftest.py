"""The whole stack, for real: brought up once by `wdmoe up`, taken down by `wdmoe down`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from orchestrator.process.root import ROOT

BUNDLED = ROOT / "models" / "bundled"
MODEL = Path(os.environ.get("WDMOE_MODEL", BUNDLED)).resolve()  # tests of the split take any
PROJECT = "wdmoe-test"
# Its own project and ports: a stack that the user runs stays as it is. fp32, for exact logits.
ENVIRONMENT = {
    **os.environ,
    "COMPOSE_PROJECT_NAME": PROJECT,
    "WDMOE_BS_PORT": "18000",
    "WDMOE_ORCHESTRATOR_PORT": "18080",
    "WDMOE_PROMETHEUS_PORT": "19090",
    "WDMOE_GRAFANA_PORT": "13000",
    "WDMOE_WIRE_DTYPE": "fp32",
}
EXPERTS = 8
SLOW_KERNEL = "User Mode Linux" in Path("/proc/cpuinfo").read_text()
PATIENCE_S = 1200 if SLOW_KERNEL else 120
if SLOW_KERNEL:  # one processor for ten processes: silence of seconds is no sign of death
    ENVIRONMENT["WDMOE_DEVICE_TIMEOUT_S"] = "20"


@dataclass(frozen=True)
class Stack:
    """Where the running stack answers."""

    bs: httpx.Client
    orchestrator: httpx.Client
    prometheus: httpx.Client

    def wdmoe(self, *arguments: str, env: dict[str, str] | None = None) -> Any:
        """Run a command that has to succeed; its JSON output."""
        done = wdmoe(*arguments, "--json", env=env)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def use(self, profile: Path | str) -> None:
        """Put a profile into force, and wait until every device has applied it."""
        epoch = self.wdmoe("profile", "use", str(profile))["epoch"]
        until(
            lambda: all(link["applied_epoch"] == epoch for link in self.status()["links"]),
            f"every device applies {profile}",
        )

    def status(self) -> dict[str, Any]:
        """What the orchestrator says is in force."""
        answer: dict[str, Any] = self.orchestrator.get("/status").raise_for_status().json()
        return answer

    def health(self) -> dict[str, Any]:
        """What the base station says of itself and its devices."""
        answer: dict[str, Any] = self.bs.get("/healthz").raise_for_status().json()
        return answer

    def admitted(self) -> set[int]:
        """The devices that the base station would send work to."""
        try:
            devices = self.health()["devices"]
        except httpx.HTTPError:
            return set()
        return {int(q) for q, device in devices.items() if device["admitted"]}

    def complete(self, prompt: Any = "12 + 30 =", **fields: Any) -> dict[str, Any]:
        """One completion, with its timings."""
        body = {"prompt": prompt, "max_tokens": 2, "timings": True, **fields}
        answer = self.bs.post("/v1/completions", json=body)
        assert answer.status_code == 200, answer.text
        reply: dict[str, Any] = answer.json()
        return reply

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The result of an instant query of the real Prometheus."""
        answer = self.prometheus.get("/api/v1/query", params={"query": expression})
        result: list[dict[str, Any]] = answer.raise_for_status().json()["data"]["result"]
        return result


def wdmoe(*arguments: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run the command line as a user would; `env` is added to the tests' own settings."""
    return run_wdmoe(*arguments, env={**ENVIRONMENT, **(env or {})})


def run_wdmoe(*arguments: str, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run the command line in an environment."""
    command = [str(Path(sys.executable).parent / "wdmoe"), *arguments]
    return subprocess.run(
        command,
        env=env,
        capture_output=True,
        text=True,
        check=False,
        timeout=3 * PATIENCE_S,
    )


def docker(*arguments: str) -> str:
    """Run docker; its output."""
    done = subprocess.run(
        ["docker", *arguments],
        env=ENVIRONMENT,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=3 * PATIENCE_S,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def container(service: str) -> str:
    """The container's name of a service."""
    return f"{PROJECT}-{service}-1"


def until(condition: Any, what: str, patience_s: float = PATIENCE_S) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {patience_s} s: {what}"
        time.sleep(0.2)


def leftovers() -> list[str]:
    """Everything of the test's stack that Docker still holds."""
    label = f"label=com.docker.compose.project={PROJECT}"
    found = docker("ps", "-aq", "--filter", label).split()
    for kind in ("network", "volume"):
        found += docker(kind, "ls", "-q", "--filter", label).split()
    return found


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    """The stack with all devices admitted and the default profile applied."""
    interfaces = _host_interfaces()
    wdmoe("down")
    # The slow kernel's engine has the images, but neither their layers' cache nor a network.
    build = "--no-build" if SLOW_KERNEL else "--build"
    up = wdmoe("up", "--json", build, "--timeout-s", str(PATIENCE_S))
    if up.returncode:
        wdmoe("down")  # another checkout's tests would find it
    assert up.returncode == 0, up.stderr
    clients = [
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE_S, trust_env=False)
        for port in (18000, 18080, 19090)
    ]
    running = Stack(*clients)
    until(lambda: running.admitted() == set(range(EXPERTS)), "all devices admitted")
    yield running
    for client in clients:
        client.close()
    down = wdmoe("down", "--json")
    assert down.returncode == 0, down.stderr
    assert leftovers() == []
    until(lambda: _host_interfaces() <= interfaces, "no interface is left", 10)


def _host_interfaces() -> set[str]:
    return {path.name for path in Path("/sys/class/net").iterdir()}


@pytest.fixture(autouse=True)
def _everyone_is_back(stack: Stack) -> None:
    """Each test begins with all devices, whatever the one before did to them."""
    until(lambda: stack.admitted() == set(range(EXPERTS)), "all devices admitted")
