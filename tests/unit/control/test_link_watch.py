"""A link that does not match the state in force is a fault in status, health and metrics."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import zmq

from orchestrator.control import link_watch
from orchestrator.control.http import create_app
from tests.harness.control_plane import FAST, STILL, Stack, eventually, profile, report, running
from tests.harness.serving import serve


@pytest.fixture
def stack() -> Iterator[Stack]:
    with running(STILL, None) as made:
        yield made


def fault(stack: Stack, device: int) -> Any:
    return stack.control.status().links[device].fault


def send_report(stack: Stack, device: int, **fields: Any) -> None:
    """Send a report of the state in force; `fields` override its fields."""
    now = stack.control.status()
    fields = {"epoch": now.epoch, "interval": now.interval, **fields}
    stack.connect(zmq.PUSH, f"device-{device}").send(report(device, **fields))


def test_a_link_is_well_once_it_is_reported_as_in_force(stack: Stack) -> None:
    assert fault(stack, 1) == "nothing was reported of it yet"
    assert stack.metric("wdmoe_link_fault", device="1") == 1
    send_report(stack, 1)
    eventually(lambda: fault(stack, 1) is None)
    assert stack.metric("wdmoe_link_fault", device="1") == 0
    assert fault(stack, 0) == "nothing was reported of it yet"


def test_an_error_that_a_device_reports_is_a_fault(stack: Stack) -> None:
    send_report(stack, 0, error="tc: ended without a word")
    eventually(lambda: fault(stack, 0) == "tc: ended without a word")


def test_an_old_report_is_a_fault(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    send_report(stack, 0)
    eventually(lambda: fault(stack, 0) is None)
    monkeypatch.setattr(link_watch, "SILENT_AFTER_S", 0.3)
    eventually(lambda: fault(stack, 0) == "nothing was reported of it for 0 s")
    assert (stack.metric("wdmoe_link_report_age_seconds", device="0") or 0) > 0.3
    send_report(stack, 0)
    eventually(lambda: fault(stack, 0) is None)


def test_a_link_that_keeps_an_old_epoch_is_a_fault(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link_watch, "OVERDUE_AFTER_S", 0.3)
    send_report(stack, 0)
    old = stack.control.status().epoch
    eventually(lambda: fault(stack, 0) is None)
    time.sleep(0.4)
    assert fault(stack, 0) is None  # the only interval of a static channel
    stack.control.use_policy("top1", {})
    assert fault(stack, 0) is None  # it has some time to follow
    eventually(lambda: fault(stack, 0) == "has not applied what is in force, due 0 s ago")
    send_report(stack, 0, epoch=old)
    assert fault(stack, 0) is not None
    send_report(stack, 0)
    eventually(lambda: fault(stack, 0) is None)


def test_a_link_that_stays_in_an_interval_is_a_fault(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link_watch, "OVERDUE_AFTER_S", 0.3)
    stack.control.use(profile(FAST))
    send_report(stack, 0)
    eventually(lambda: fault(stack, 0) is None)
    eventually(lambda: fault(stack, 0) == "has not applied what is in force, due 0 s ago")


def test_health_names_the_links_that_are_not_as_in_force(stack: Stack) -> None:
    send_report(stack, 1)
    eventually(lambda: fault(stack, 1) is None)
    with serve(create_app(stack.control, stack.registry)) as url:
        answer = httpx.get(f"{url}/healthz", trust_env=False)
    assert answer.status_code == 200  # of the orchestrator itself
    health = answer.json()
    assert health["status"] == "links not as in force"
    assert health["links"] == {"device-0": "nothing was reported of it yet"}
