"""A device that dies or stalls is told of within seconds, and no longer once it is back."""

from __future__ import annotations

import time
from typing import Any

import pytest

from tests.stack.conftest import EXPERTS, Stack, container, docker, until

# 15 s are promised on a quiet host; it prints what it took.
PATIENCE_S = 30


def gone(stack: Stack) -> dict[str, dict[str, Any]]:
    """The firing alerts of devices that are gone, by device, as Prometheus has them."""
    answer = stack.prometheus.get("/api/v1/alerts").raise_for_status().json()
    return {
        alert["labels"]["device"]: alert
        for alert in answer["data"]["alerts"]
        if alert["labels"]["alertname"] == "DeviceGone" and alert["state"] == "firing"
    }


@pytest.mark.parametrize(("fault", "repair"), [("kill", "start"), ("pause", "unpause")])
def test_a_device_that_is_gone_is_told_of_until_it_is_back(
    stack: Stack, fault: str, repair: str
) -> None:
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
