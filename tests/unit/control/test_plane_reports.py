"""Reports of devices to the control plane, and their effect on status and metrics."""

import time
from pathlib import Path

import pytest
import zmq

from orchestrator.contracts.verification import Series, Verification
from orchestrator.errors import InputError
from tests.harness.control_plane import (
    DELAYED,
    QUEUE,
    STILL,
    Stack,
    eventually,
    profile,
    report,
    running,
)


def test_a_report_is_shown_with_its_lateness(stack: Stack) -> None:
    epoch = stack.control.status().epoch
    reports = stack.connect(zmq.PUSH, "device-1")
    began_s = time.time()
    for interval in range(100):
        due_s = began_s + interval
        reports.send(
            report(1, epoch=epoch, interval=interval, apply_at_s=due_s, applied_at_s=due_s + 0.25)
        )
    reports.send(report(1, epoch=epoch, interval=100, apply_at_s=began_s + 100, error="no ifb"))
    eventually(lambda: stack.control.status().links[1].error == "no ifb")
    link = stack.control.status().links[1]
    assert (link.backend, link.applied_epoch, link.applied_interval) == (
        *("netem", epoch),
        100,
    )
    assert link.lateness.model_dump() == pytest.approx(
        {"n": 100, "p50_s": 0.25, "p99_s": 0.25, "max_s": 0.25}, abs=1e-6
    )
    assert link.reported_age_s is not None
    assert 0 <= link.reported_age_s < 10
    assert link.queues is not None
    assert link.queues.up.model_dump() == QUEUE
    recorded = stack.control.intervals(began_s + 90)
    assert [item.interval for item in recorded] == list(range(90, 100))
    stack.control.use(profile(STILL))
    assert stack.control.status().links[1].lateness.n == 0  # of an epoch gone by


def test_a_verification_is_kept_and_exported_while_its_profile_is_in_force(stack: Stack) -> None:
    series = Series(
        device=1,
        direction="up",
        size_bytes=65536,
        wire_bits=500_000,
        delay_s=0.0,
        n=41,
        expected_s=0.1,
        measured_s=0.103,
        p10_s=0.102,
        p90_s=0.11,
        cost_s=0.001,
        unshaped_s=0.002,
    )
    found = Verification(
        verified_at="2026-01-01T00:00:00+00:00",
        profile="p",
        profile_sha256=stack.control.status().profile_sha256,
        backends=["tbf"],
        series=[series],
        losses=[],
    )
    stack.control.verified(found)
    assert stack.control.status().verification == found.model_dump()
    link = {"device": "1", "direction": "up"}
    assert stack.metric("wdmoe_link_error_ratio", **link, bytes="65536") == pytest.approx(0.02)
    assert stack.metric("wdmoe_link_error_seconds", **link, bytes="65536") == pytest.approx(0.002)
    assert stack.metric("wdmoe_link_measured_rate_bps", **link) == pytest.approx(500_000 / 0.103)
    stack.control.use_policy("top1", {})
    eventually(lambda: stack.metric("wdmoe_policy_info", name="top1", params="") == 1)
    assert stack.metric("wdmoe_link_error_ratio", **link, bytes="65536") is not None
    stack.control.use(profile(DELAYED))
    eventually(lambda: stack.metric("wdmoe_link_error_ratio", **link, bytes="65536") is None)
    assert stack.metric("wdmoe_link_error_seconds", **link, bytes="65536") is None
    assert stack.metric("wdmoe_link_measured_rate_bps", **link) is None
    assert stack.control.status().verification == found.model_dump()


def test_errors_of_a_link_stay_counted_after_they_end(stack: Stack) -> None:
    reports = stack.connect(zmq.PUSH, "device-1")
    for error in ("tc: killed", "tc: killed", None):
        reports.send(report(1, error=error))
    eventually(lambda: stack.control.status().links[1].backend is not None)
    eventually(lambda: stack.control.status().links[1].error is None)
    assert [link.errors for link in stack.control.status().links] == [0, 2]


def test_hostile_reports_are_counted_and_do_no_harm(stack: Stack) -> None:
    reports = stack.connect(zmq.PUSH, "device-1")
    for bad in (b"", b"\xc1", b"\x91" * 1000, report(2), report(1, backend="htb"), b"x" * 9999):
        reports.send(bad)
    reports.send_multipart([b"", b"\xc1"])
    reports.send(report(1))
    eventually(lambda: stack.control.status().links[1].backend == "netem")
    assert stack.metric("wdmoe_refused_messages_total", reason="malformed") == 7


def test_a_device_can_report_only_for_itself(tmp_path: Path) -> None:
    with running(STILL, tmp_path) as stack:
        reports = stack.connect(zmq.PUSH, "device-1")
        reports.send(report(0))
        reports.send(report(1))
        eventually(lambda: stack.control.status().links[1].backend == "netem")
        assert stack.control.status().links[0].backend is None
        assert stack.metric("wdmoe_refused_messages_total", reason="impostor") == 1


def test_a_profile_that_needs_netem_is_refused_without_it(stack: Stack) -> None:
    stack.connect(zmq.PUSH, "device-1").send(report(1, backend="tbf"))
    eventually(lambda: stack.control.status().links[1].backend == "tbf")
    epoch = stack.control.status().epoch
    with pytest.raises(
        InputError, match=r"the kernel under device-1 has no netem .*allow_degraded"
    ):
        stack.control.use(profile(DELAYED))
    assert stack.control.status().epoch == epoch
    stack.control.use(profile(DELAYED), allow_degraded=True)
    assert stack.control.status().links[0].up.delay_s == 0.01
    assert stack.control.status().degraded
    stack.connect(zmq.PUSH, "device-1").send(report(1))  # the device came back on another kernel
    eventually(lambda: stack.control.status().links[1].backend == "netem")
    stack.control.use(profile(DELAYED))
    assert not stack.control.status().degraded
