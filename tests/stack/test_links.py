"""Links follow their profile: verified on the radio, switched under load, driven by traces."""

import json
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import count, cycle
from pathlib import Path
from typing import Any

import pytest

from orchestrator.client.client import Client
from orchestrator.radio import profiles
from tests.stack.conftest import (
    EXPERTS,
    PROJECT,
    SLOW_KERNEL,
    URLS,
    Stack,
    container,
    docker,
    until,
)
from tests.stack.test_shaping import write_profile

# At least so many, and as long as the replay runs.
SWITCHES = 10 if SLOW_KERNEL else 50
SWITCH_EVERY_S = 2.0 if SLOW_KERNEL else 0.2
# Generous limits: docs/radio.md has the accuracy measured on a quiet host.
NETEM_ERROR, TBF_ERROR = 0.3, 0.4


def test_a_verification_appears_in_status_metrics_and_runs(stack: Stack, tmp_path: Path) -> None:
    stack.use(write_profile(tmp_path, 20e6, 10e6))
    before = stack.status()
    found = stack.wdmoe("link", "verify", "--device", "2")
    backend = before["links"][0]["backend"]
    assert found["backends"] == [backend]
    assert [(s["direction"], s["size_bytes"] >> 10) for s in found["series"]] == [
        *(("down", 1), ("down", 8), ("down", 64)),
        *(("up", 1), ("up", 8), ("up", 64)),
    ]
    for series in found["series"]:
        rate_bps = 20e6 if series["direction"] == "down" else 10e6
        assert series["expected_s"] == pytest.approx(series["wire_bits"] / rate_bps, rel=1e-3)
        assert series["p10_s"] <= series["measured_s"] <= series["p90_s"]
        assert min(series["cost_s"], series["unshaped_s"]) > 0
        if series["size_bytes"] == 1 << 16:
            assert abs(series["error"]) < (NETEM_ERROR if backend == "netem" else TBF_ERROR)
    after = stack.status()
    assert after["verification"]["series"][0]["measured_s"] == found["series"][0]["measured_s"]
    assert (after["profile"], after["profile_sha256"]) == (
        before["profile"],
        before["profile_sha256"],
    )
    if not SLOW_KERNEL:  # its only processor is too slow for Prometheus as well
        query = "wdmoe_link_error_ratio{device='2', direction='up', bytes='65536'}"
        until(lambda: len(stack.query(query)) == 1, "Prometheus has the error")
    stack.use("near-far")
    out = tmp_path / "run"
    stack.wdmoe("replay", "facts", "--limit", "1", "--out", str(out))
    run = json.loads((out / "run.json").read_text())
    assert run["channel"]["verification"] == after["verification"]
    if not SLOW_KERNEL:
        until(lambda: stack.query(query) == [], "Prometheus drops the error of the old links")


def test_repeated_profile_switches_lose_no_packet_and_no_request(
    stack: Stack, tmp_path: Path
) -> None:
    stack.use("near-far")
    out = tmp_path / "run"
    with ThreadPoolExecutor(1) as background:
        limit = "2" if SLOW_KERNEL else "25"
        replay = background.submit(
            *(stack.wdmoe, "replay", "facts", "--limit", limit, "--out", str(out)),
            *("--fading", "one"),
        )
        with closing(Client(URLS[0], URLS[1])) as client:
            names = cycle(["mobility", "rayleigh-100m"])
            for number in count():
                if number >= SWITCHES and replay.done():
                    break
                client.use_profile(profiles.find(next(names)), allow_degraded=True)
                time.sleep(SWITCH_EVERY_S)
        summary = replay.result()
    assert summary["errors"] == 0
    assert all("dropped" not in warning for warning in summary["warnings"])
    stack.use("rayleigh-100m")
    for link in stack.status()["links"]:
        assert link["error"] is None
        for queue in link["queues"].values():
            assert (queue["drops"], queue["backlog_bytes"]) == (0, 0)
    requests = [json.loads(line) for line in (out / "requests.jsonl").read_text().splitlines()]
    assert all(request["timings"]["experts"]["dropped"] == {} for request in requests)
    applied = [json.loads(line) for line in (out / "intervals.jsonl").read_text().splitlines()]
    assert {interval["device"] for interval in applied} == set(range(EXPERTS))
    stack.use(write_profile(tmp_path, 20e6, 10e6))
    selection = ("--device", "0") if SLOW_KERNEL else ()
    found = stack.wdmoe("link", "verify", *selection)
    largest = [series for series in found["series"] if series["size_bytes"] == 1 << 16]
    assert len(largest) == 2 * (1 if SLOW_KERNEL else EXPERTS)
    worst = max(abs(series["error"]) for series in largest)
    assert worst < (NETEM_ERROR if found["backends"] == ["netem"] else TBF_ERROR)


def test_links_follow_a_recorded_trace(stack: Stack, tmp_path: Path) -> None:
    (tmp_path / "steps.csv").write_text(
        "time_s,down_bps,up_bps\n0,10000000,5000000\n0.5,20000000,8000000\n"
    )
    profile = {
        "description": "a trace",
        "fading": {"kind": "none", "coherence_s": 0.5},
        "devices": [{"trace": "steps.csv"}] * EXPERTS,
    }
    (tmp_path / "trace.yaml").write_text(json.dumps(profile))
    stack.use(tmp_path / "trace.yaml")
    seen: set[float] = set()

    def both_steps() -> bool:
        status = stack.status()
        seen.add(status["links"][3]["up"]["rate_bps"])
        return seen == {5e6, 8e6} and status["interval"] > 2

    until(both_steps, "both steps of the trace are applied")
    assert stack.complete()["timings"]["experts"]["dropped"] == {}


KILL_TC = """
import os, signal
for process in filter(str.isdigit, os.listdir("/proc")):
    with open(f"/proc/{process}/comm") as file:
        if file.read() == "tc\\n":
            os.kill(int(process), signal.SIGKILL)
"""


def test_a_device_that_rejoins_the_radio_is_shaped_before_it_serves(
    stack: Stack, tmp_path: Path
) -> None:
    stack.use(write_profile(tmp_path, 20e6, 10e6))
    network, device = f"{PROJECT}_radio", container("device-6")
    firing = "ALERTS{alertname='LinkNotInForce', alertstate='firing', device='6'}"
    docker("network", "disconnect", network, device)
    try:
        until(lambda: 6 not in stack.admitted(), "the base station notices the missing device")
        fault = stack.status()["links"][6]["fault"]
        assert "on no network of this container" in fault
        assert stack.orchestrator.get("/healthz").json()["links"] == {"device-6": fault}
        if not SLOW_KERNEL:
            until(lambda: stack.query(firing) != [], "the alert is raised", 30)
    finally:
        docker("network", "connect", network, device)
    until(lambda: 6 in stack.admitted(), "the device is back")
    assert stack.status()["links"][6]["fault"] is None
    qdiscs = json.loads(docker("exec", device, "tc", "-json", "qdisc"))
    rates = sorted(8 * qdisc["options"]["rate"] for qdisc in qdiscs if qdisc["kind"] == "tbf")
    assert rates == pytest.approx([10e6, 20e6], rel=1e-3)
    found = stack.wdmoe("link", "verify", "--device", "6")
    for series in found["series"]:
        if series["size_bytes"] == 1 << 16:
            assert abs(series["error"]) < (NETEM_ERROR if netem(found) else TBF_ERROR)
    if not SLOW_KERNEL:
        until(lambda: stack.query(firing) == [], "the alert is cleared", 30)


def test_a_tc_that_is_killed_does_not_leave_the_link_as_it_is(stack: Stack) -> None:
    stack.use("block-fading")
    before = errors(stack, 2)
    docker("exec", container("device-2"), "python", "-c", KILL_TC)
    until(lambda: errors(stack, 2) > before, "the error is counted")
    applied = stack.status()["links"][2]["applied_interval"]
    until(lambda: stack.status()["links"][2]["applied_interval"] > applied, "intervals are applied")
    until(lambda: stack.status()["links"][2]["fault"] is None, "the link has no fault")
    until(lambda: 2 in stack.admitted(), "the device serves")
    assert stack.complete()["timings"]["experts"]["dropped"] == {}


def errors(stack: Stack, q: int) -> float:
    """Return a device's count of link errors."""
    fetch = (
        "import urllib.request as u\n"
        f"print(u.urlopen('http://device-{q}:9100/metrics').read().decode())"
    )
    page = docker("exec", container("bs"), "python", "-c", fetch)
    (line,) = (x for x in page.splitlines() if x.startswith("wdmoe_link_errors_total"))
    return float(line.split()[1])


def netem(found: dict[str, Any]) -> bool:
    """Whether a verification was of links shaped by netem."""
    return bool(found["backends"] == ["netem"])
