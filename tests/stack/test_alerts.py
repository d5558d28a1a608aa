"""An alert fires within seconds for a device that dies or stalls, and clears on its return."""

from __future__ import annotations

import time
from typing import Any

import pytest

from tests.stack.conftest import EXPERTS, Stack, container, docker, until

# The documented limit is 15 s on a quiet host; the test prints the actual times.
PATIENCE_S = 30


def gone(stack: Stack) -> dict[str, dict[str, Any]]:
    """Return Prometheus' firing alerts for missing devices, by device."""
    answer = stack.prometheus.get("/api/v1/alerts").raise_for_status().json()
    return {
        alert["labels"]["device"]: alert
        for alert in answer["data"]["alerts"]
        if alert["labels"]["alertname"] == "DeviceGone" and alert["state"] == "firing"
    }


@pytest.mark.parametrize(("fault", "repair"), [("kill", "start"), ("pause", "unpause")])
def test_an_alert_fires_while_a_device_is_gone(stack: Stack, fault: str, repair: str) -> None:
    until(lambda: not gone(stack), "no alert at the beginning")
    began_s = time.monotonic()
    docker(fault, container("device-5"))
    try:
        until(lambda: "5" in gone(stack), "the alert is raised", PATIENCE_S)
        raised_s = time.monotonic() - began_s
        alert = gone(stack)["5"]
        assert alert["annotations"]["summary"] == "Device 5 does not answer"
        assert "docker compose up -d device-5" in alert["annotations"]["action"]
    finally:
        docker(repair, container("device-5"))
    until(lambda: stack.admitted() == set(range(EXPERTS)), "the device is back")
    began_s = time.monotonic()
    until(lambda: not gone(stack), "the alert is cleared", PATIENCE_S)
    cleared_s = time.monotonic() - began_s
    print(f"docker {fault}: raised after {raised_s:.1f} s, cleared {cleared_s:.1f} s after return")
