"""A link follows the orchestrator, whatever happens to its interface, its queues or tc.

this namespace [ control, 10.78.0.1: orchestrator ] ═══ [ 10.78.0.2: agent ] namespace of the
               [ radio,   10.77.0.1               ] ═══ [ 10.77.0.2        ] device
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from orchestrator.contracts import channel_state
from orchestrator.control.plane import ControlPlane
from orchestrator.metrics import orchestrator_metrics
from orchestrator.radio import profiles
from services.net.radio_interface import run
from tests.net.conftest import DEVICE_ADDRESS, HOST_ADDRESS, HOST_END, NAMESPACE

INSIDE = ("ip", "-n", NAMESPACE)
CONTROL_END, CONTROL_ADDRESS = "wdmoe-control", "10.78.0.1"
PROFILE = "description: a link\nfading: {kind: none}\ndevices: [{down: {%s}, up: {%s}}]\n"
# A tc that, if a given file exists, prints it once instead of running a command, and exits.
WRAPPED_TC = """#!{python} -IS
import os, subprocess, sys
if "-batch" not in sys.argv:
    os.execv({tc!r}, ["tc", *sys.argv[1:]])
real = subprocess.Popen([{tc!r}, *sys.argv[1:]], stdin=subprocess.PIPE)
while line := os.read(0, 65536):
    if os.path.exists({says!r}):
        os.write(1, open({says!r}, "rb").read())
        os.remove({says!r})
        break
    real.stdin.write(line)
    real.stdin.flush()
"""


def add_radio(name: str) -> None:
    """Give the device its radio interface, like a container that joins a network."""
    run("ip", "link", "add", HOST_END, "type", "veth", "peer", "name", name, "netns", NAMESPACE)
    run("ip", "address", "add", f"{HOST_ADDRESS}/30", "dev", HOST_END)
    run("ip", "link", "set", HOST_END, "up")
    run(*INSIDE, "address", "add", f"{DEVICE_ADDRESS}/30", "dev", name)
    run(*INSIDE, "link", "set", name, "up")


class Device:
    """The agent in its namespace, and its orchestrator."""

    def __init__(self, folder: Path, control: ControlPlane) -> None:
        self.control = control
        self.says = folder / "says"
        tc = folder / "tc"
        real = {"python": sys.executable, "tc": shutil.which("tc"), "says": str(self.says)}
        tc.write_text(WRAPPED_TC.format(**real))
        tc.chmod(0o755)
        path = f"{folder}:{os.environ['PATH']}"
        inside = ["ip", "netns", "exec", NAMESPACE, sys.executable, "-m", "tests.net.agent_end"]
        self._process = subprocess.Popen(
            [*inside, CONTROL_ADDRESS, HOST_ADDRESS],
            env={**os.environ, "PATH": path},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def see(self) -> dict[str, Any]:
        """Return the device's view of its link."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        seen: dict[str, Any] = json.loads(self._process.stdout.readline())
        return seen

    def signal_tc(self, number: int) -> None:
        """Send a signal to the agent's tc process."""
        for line in Path("/proc").glob("*/stat"):
            try:
                fields = line.read_text().split()
            except OSError:  # the process has ended
                continue
            if fields[1] == "(tc)" and int(fields[3]) == self._process.pid:
                os.kill(int(fields[0]), number)

    def use(self, down: str, up: str) -> None:
        """Activate rates."""
        self.control.use(profiles.parse(PROFILE % (down, up), "p", "p.yaml"))

    def is_as_in_force(self) -> bool:
        """Whether device and orchestrator report no fault and the kernel has the rates."""
        if self.see()["fault"] is not None or self.control.links.faults():
            return False
        status = self.control.status()
        link = status.links[0]
        if link.applied_epoch != status.epoch:  # it may be about to be applied
            return False
        return rates() == {"down": link.down.rate_bps, "up": link.up.rate_bps}

    def packets_up(self) -> int:
        """How many packets the device has reported of its uplink."""
        queues = self.control.status().links[0].queues
        assert queues is not None
        return queues.up.packets

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        assert self._process.wait(timeout=20) == 0


def rates() -> dict[str, float | None]:
    """Return the token buckets' rate in each direction, as shown by tc."""
    qdiscs = json.loads(run("tc", "-n", NAMESPACE, "-json", "qdisc", "show"))
    buckets = {q["dev"]: 8 * q["options"]["rate"] for q in qdiscs if q["kind"] == "tbf"}
    ingress = [q["dev"] for q in qdiscs if q["kind"] == "ingress"]
    redirected = ingress and '"to_dev":"ifb-radio"' in run(
        *("tc", "-n", NAMESPACE, "-json", "filter", "show", "dev", ingress[0], "parent", "ffff:")
    )
    down = buckets.pop("ifb-radio", None) if redirected else None
    return {"down": down, "up": next(iter(buckets.values()), None)}


def eventually(holds: Callable[[], bool], patience_s: float = 60) -> None:
    deadline = time.monotonic() + patience_s
    while not holds():
        assert time.monotonic() < deadline, f"not within {patience_s} s: {holds}"
        time.sleep(0.05)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Device]:
    subprocess.run(["ip", "netns", "del", NAMESPACE], capture_output=True, check=False)
    run("ip", "netns", "add", NAMESPACE)
    peer = ("peer", "name", "eth0", "netns", NAMESPACE)
    run("ip", "link", "add", CONTROL_END, "type", "veth", *peer)
    try:
        run("ip", "address", "add", f"{CONTROL_ADDRESS}/30", "dev", CONTROL_END)
        run("ip", "link", "set", CONTROL_END, "up")
        run(*INSIDE, "address", "add", "10.78.0.2/30", "dev", "eth0")
        run(*INSIDE, "link", "set", "eth0", "up")
        # as in a container: traffic to other networks goes to the control network's gateway
        run(*INSIDE, "route", "add", "default", "via", CONTROL_ADDRESS)
        add_radio("eth1")
        control = ControlPlane(
            profiles.parse(PROFILE % ("", ""), "p", "p.yaml"),
            devices=1,
            metrics=orchestrator_metrics(CollectorRegistry()),
            keys_dir=None,
            state_address=f"tcp://{CONTROL_ADDRESS}:{channel_state.STATE_PORT}",
            report_address=f"tcp://{CONTROL_ADDRESS}:{channel_state.REPORT_PORT}",
        )
        with control:
            made = Device(tmp_path_factory.mktemp("device"), control)
            yield made
            made.close()
    finally:
        for end in (CONTROL_END, HOST_END):
            subprocess.run(["ip", "link", "del", end], capture_output=True, check=False)
        run("ip", "netns", "del", NAMESPACE)


@pytest.fixture
def device(shared: Device) -> Device:
    shared.use("rate_bps: 20e6", "rate_bps: 5e6")
    eventually(shared.is_as_in_force)
    return shared


@pytest.mark.parametrize(("name", "away_s"), [("eth2", 3), ("eth2", 0), ("eth1", 0)])
def test_an_interface_that_returns_is_shaped_again(
    device: Device, name: str, away_s: float
) -> None:
    before = device.packets_up()
    faults = device.see()["faults"]
    run("ip", "link", "del", HOST_END)
    assert device.see()["fault"] is not None  # at once, so that the device stops serving
    time.sleep(away_s)
    if away_s:
        assert "10.77.0.1: on no network of this container" in device.control.links.faults()[0]
    add_radio(name)
    eventually(device.is_as_in_force)
    assert rates() == {"down": 20e6, "up": 5e6}
    assert device.see()["faults"] > faults
    assert device.packets_up() >= before
    # the control network is not the radio, whatever was on it meanwhile
    qdiscs = json.loads(run("tc", "-n", NAMESPACE, "-json", "qdisc", "show", "dev", "eth0"))
    assert {qdisc["kind"] for qdisc in qdiscs} == {"noqueue"}


def test_a_killed_tc_is_restarted(device: Device) -> None:
    faults = device.see()["faults"]
    device.signal_tc(signal.SIGKILL)
    eventually(lambda: device.see()["faults"] > faults)
    eventually(device.is_as_in_force)


def test_a_hanging_tc_is_a_fault_and_is_replaced(device: Device) -> None:
    device.signal_tc(signal.SIGSTOP)
    eventually(lambda: device.control.links.faults() == {0: "tc: no answer within 10 s"})
    eventually(device.is_as_in_force)


@pytest.mark.parametrize(
    "output", ['[{"kind":"tb', "Segmentation fault\n", "[]\n[]\n[]\n", "[1]\n[1]\n[1]\n"]
)
def test_invalid_tc_output_is_counted_and_retried(device: Device, output: str) -> None:
    faults = device.see()["faults"]
    device.says.write_text(output)
    eventually(lambda: device.see()["faults"] > faults)
    eventually(device.is_as_in_force)
    assert device.see()["alive"]


@pytest.mark.parametrize(
    "change",
    [
        "qdisc change dev eth1 root handle 1: tbf rate 1mbit burst 1600 limit 80000",
        "qdisc replace dev ifb-radio root handle 1: tbf rate 1mbit burst 1600 limit 80000",
        "qdisc del dev eth1 root",
        "qdisc del dev eth1 ingress",
        "filter del dev eth1 parent ffff:",
        "qdisc del dev ifb-radio root",
    ],
)
def test_queues_changed_by_another_program_are_restored(device: Device, change: str) -> None:
    faults = device.see()["faults"]
    run("tc", "-n", NAMESPACE, *change.split())
    assert rates() != {"down": 20e6, "up": 5e6}
    eventually(lambda: device.see()["faults"] > faults)
    eventually(device.is_as_in_force)
    assert rates() == {"down": 20e6, "up": 5e6}


def test_states_received_while_tc_hangs_are_not_lost(device: Device) -> None:
    device.signal_tc(signal.SIGSTOP)
    device.use("rate_bps: 30e6", "rate_bps: 6e6")
    assert not device.is_as_in_force()
    eventually(device.is_as_in_force)
    assert rates() == {"down": 30e6, "up": 6e6}
