"""The whole stack in real containers: started once by `wdmoe up`, stopped by `wdmoe down`."""

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
# Tests of the split model accept any model.
MODEL = Path(os.environ.get("WDMOE_MODEL", BUNDLED)).resolve()
PROJECT = "wdmoe-test"
# A separate project and ports leave a stack of the user's alone. fp32 gives exact logits.
ENVIRONMENT = {
    **os.environ,
    "COMPOSE_PROJECT_NAME": PROJECT,
    "WDMOE_BS_PORT": "18000",
    "WDMOE_ORCHESTRATOR_PORT": "18080",
    "WDMOE_PROMETHEUS_PORT": "19090",
    "WDMOE_GRAFANA_PORT": "13000",
    "WDMOE_WIRE_DTYPE": "fp32",
}
# Of the base station, the orchestrator and Prometheus.
URLS = tuple(f"http://127.0.0.1:{port}" for port in (18000, 18080, 19090))
EXPERTS = 8
SLOW_KERNEL = "User Mode Linux" in Path("/proc/cpuinfo").read_text()
PATIENCE_S = 1200 if SLOW_KERNEL else 120
if SLOW_KERNEL:  # ten processes share one processor, so seconds of silence are normal
    ENVIRONMENT["WDMOE_DEVICE_TIMEOUT_S"] = "20"


@dataclass(frozen=True)
class Stack:
    """HTTP clients of the running stack."""

    bs: httpx.Client
    orchestrator: httpx.Client
    prometheus: httpx.Client

    def wdmoe(self, *arguments: str, env: dict[str, str] | None = None) -> Any:
        """Run a command that must succeed; return its JSON output."""
        done = wdmoe(*arguments, "--json", env=env)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def use(self, profile: Path | str) -> None:
        """Activate a profile, and wait until every device has applied it."""
        epoch = self.wdmoe("profile", "use", str(profile))["epoch"]
        until(
            lambda: all(link["applied_epoch"] == epoch for link in self.status()["links"]),
            f"every device applies {profile}",
        )

    def status(self) -> dict[str, Any]:
        """Return the orchestrator's status."""
        answer: dict[str, Any] = self.orchestrator.get("/status").raise_for_status().json()
        return answer

    def health(self) -> dict[str, Any]:
        """Return the base station's health, with that of its devices."""
        answer: dict[str, Any] = self.bs.get("/healthz").raise_for_status().json()
        return answer

    def admitted(self) -> set[int]:
        """Return the devices that the base station sends work to."""
        try:
            devices = self.health()["devices"]
        except httpx.HTTPError:
            return set()
        return {int(q) for q, device in devices.items() if device["admitted"]}

    def complete(self, prompt: Any = "12 + 30 =", **fields: Any) -> dict[str, Any]:
        """Return one completion, with its timings."""
        body = {"prompt": prompt, "max_tokens": 2, "timings": True, **fields}
        answer = self.bs.post("/v1/completions", json=body)
        assert answer.status_code == 200, answer.text
        reply: dict[str, Any] = answer.json()
        return reply

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Return the result of an instant query to the real Prometheus."""
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
    """Run docker; return its output."""
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
    """Return the name of a service's container."""
    return f"{PROJECT}-{service}-1"


def until(condition: Any, what: str, patience_s: float = PATIENCE_S) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {patience_s} s: {what}"
        time.sleep(0.2)


def leftovers() -> list[str]:
    """Return everything of the test's stack that Docker still holds."""
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
    # The slow kernel's engine has the images, but no build cache and no network.
    build = "--no-build" if SLOW_KERNEL else "--build"
    up = wdmoe("up", "--json", build, "--timeout-s", str(PATIENCE_S))
    if up.returncode:
        wdmoe("down")  # or another checkout's tests would find it
    assert up.returncode == 0, up.stderr
    clients = [httpx.Client(base_url=url, timeout=PATIENCE_S, trust_env=False) for url in URLS]
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
def _all_devices_admitted(stack: Stack) -> None:
    """Start each test with all devices, whatever the previous test did to them."""
    until(lambda: stack.admitted() == set(range(EXPERTS)), "all devices admitted")
