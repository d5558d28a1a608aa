"""Shaped links on the real stack: measured times follow the rate of each direction."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.stack.conftest import EXPERTS, Stack, container, docker, until, wdmoe

BITS_PER_TOKEN = 16 * 4096
TOKENS = [5 + i % 200 for i in range(24)]


def write_profile(folder: Path, down_bps: float, up_bps: float, delay_s: float = 0) -> Path:
    link: dict[str, Any] = {"flops": 1e12}
    link["down"] = {"rate_bps": down_bps, "delay_s": delay_s}
    link["up"] = {"rate_bps": up_bps}
    path = folder / f"down-{down_bps:.0f}-up-{up_bps:.0f}-delay-{delay_s}.yaml"
    profile = {
        "description": "equal links of a known rate",
        "seed": 1,
        "fading": {"kind": "none"},
        "emulate": {"hidden_size": 4096, "intermediate_size": 14336, "bits_per_element": 16},
        "devices": [link] * EXPERTS,
    }
    path.write_text(json.dumps(profile))
    return path


def measure(stack: Stack, folder: Path, down_bps: float, up_bps: float) -> dict[str, Any]:
    """Return the timings of one prompt's forward pass at the given rates."""
    stack.use(write_profile(folder, down_bps, up_bps))
    stack.complete(TOKENS, max_tokens=1)  # lets TCP adapt to the new rate
    timings: dict[str, Any] = stack.complete(TOKENS, max_tokens=1)["timings"]
    return timings


def test_downlink_and_uplink_times_follow_their_own_rate(stack: Stack, tmp_path: Path) -> None:
    fast, slow = 20e6, 1e6
    slow_down = measure(stack, tmp_path, slow, fast)
    slow_up = measure(stack, tmp_path, fast, slow)
    assert slow_down["downlink_s"] > 3 * slow_down["uplink_s"]
    assert slow_up["uplink_s"] > 3 * slow_up["downlink_s"]
    # The bounds are even routing, and all tokens of each layer on one device.
    pairs = sum(slow_up["experts"]["used"].values())
    serial_s = pairs * BITS_PER_TOKEN / slow
    for timings, direction in ((slow_down, "downlink_s"), (slow_up, "uplink_s")):
        assert 0.8 * serial_s / EXPERTS < timings[direction] < 1.3 * serial_s


def test_delay_is_applied_with_netem_and_rejected_without(stack: Stack, tmp_path: Path) -> None:
    rate_bps, delay_s = 20e6, 0.3
    undelayed = measure(stack, tmp_path, rate_bps, rate_bps)
    delayed = write_profile(tmp_path, rate_bps, rate_bps, delay_s)
    if stack.status()["links"][0]["backend"] == "netem":
        stack.use(delayed)
    else:
        refused = wdmoe("profile", "use", str(delayed))
        assert refused.returncode == 2
        assert "has no netem" in refused.stderr
        delay_s = 0
        stack.wdmoe("profile", "use", str(delayed), "--allow-degraded")
        assert stack.status()["degraded"]
    stack.complete(TOKENS, max_tokens=1)
    delayed_timings = stack.complete(TOKENS, max_tokens=1)["timings"]
    layers = stack.health()["model"]["layers"]
    added_s = delayed_timings["downlink_s"] - undelayed["downlink_s"]
    assert added_s == pytest.approx(layers * delay_s, rel=0.3, abs=0.2)


def test_the_control_network_is_not_slowed(stack: Stack, tmp_path: Path) -> None:
    rate_bps = 100e3
    stack.use(write_profile(tmp_path, rate_bps, rate_bps))
    fetch = (
        "import time, urllib.request as u\n"
        "t = time.perf_counter()\n"
        "n = sum(len(u.urlopen('http://device-0:9100/metrics').read()) for _ in range(10))\n"
        "print(n, time.perf_counter() - t)"
    )
    size, seconds = docker("exec", container("bs"), "python", "-c", fetch).split()
    # at the radio's rate this would take twice the bound
    assert float(seconds) < 0.5 * 8 * int(size) / rate_bps


def test_devices_follow_a_channel_that_changes_every_50_ms(stack: Stack) -> None:
    stack.use("mobility")
    first = stack.status()["interval"]
    until(
        lambda: all(link["applied_interval"] > first for link in stack.status()["links"]),
        "every device applies later intervals",
    )
    assert stack.complete(TOKENS)["timings"]["experts"]["dropped"] == {}
    assert all(link["error"] is None for link in stack.status()["links"])


def test_only_the_radio_interface_is_shaped(stack: Stack) -> None:
    stack.use("near-far")
    requested = stack.status()["links"]
    for q in range(EXPERTS):
        qdiscs = json.loads(docker("exec", container(f"device-{q}"), "tc", "-json", "qdisc"))
        ours = {d["dev"]: d for d in qdiscs if d.get("handle") == "1:"}
        radio = next(d["dev"] for d in qdiscs if d["kind"] == "ingress")
        assert ours.keys() == {radio, "ifb-radio"}
        for dev, direction in ((radio, "up"), ("ifb-radio", "down")):
            options = ours[dev]["options"]
            rate = options["rate"]["rate"] if ours[dev]["kind"] == "netem" else options["rate"]
            assert 8 * rate == pytest.approx(requested[q][direction]["rate_bps"], rel=1e-3)


def test_the_reported_backend_matches_the_kernels_qdiscs(stack: Stack) -> None:
    backends = {link["backend"] for link in stack.status()["links"]}
    kinds = {
        q["kind"] for q in json.loads(docker("exec", container("device-0"), "tc", "-j", "qdisc"))
    }
    assert len(backends) == 1
    assert backends <= kinds
