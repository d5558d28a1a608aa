"""The control plane over real sockets: states ahead of time, late joiners, reports, switching."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgpack
import pytest
import zmq
from prometheus_client import CollectorRegistry, generate_latest

from orchestrator import keys, profiles, state
from orchestrator.control import Control
from orchestrator.errors import InputError, StackError
from orchestrator.metrics import orchestrator_metrics
from orchestrator.plan import LEAD_S
from orchestrator.profiles import Profile
from orchestrator.state import ChannelState, Param, PolicyState
from orchestrator.verification import Series, Verification

STILL = """\
description: two devices
fading: {kind: rayleigh}
devices: [{distance_m: 100, flops: 1e12}, {down: {}, up: {rate_bps: 5e6}}]
"""
FAST = STILL.replace("{kind: rayleigh}", "{kind: rayleigh, coherence_s: 0.05}")
DELAYED = STILL.replace("flops: 1e12", "extra_delay_s: 0.01")


def profile(text: str, name: str = "p") -> Profile:
    return profiles.parse(text, name, f"{name}.yaml")


@dataclass
class Stack:
    """A running control plane, and what its peers need to reach it."""

    control: Control
    registry: CollectorRegistry
    context: zmq.Context[zmq.Socket[bytes]]
    keys_dir: Path | None

    def connect(self, kind: int, own: str) -> zmq.Socket[bytes]:
        socket = self.context.socket(kind)
        if self.keys_dir is not None:
            server = keys.load_public(self.keys_dir, "orchestrator")
            keys.curve_client(socket, keys.load(self.keys_dir, own), server)
        if kind == zmq.SUB:
            socket.subscribe(b"")
        socket.connect(self.control.endpoints[0 if kind == zmq.SUB else 1])
        return socket

    def metric(self, name: str, /, **labels: str) -> float | None:
        return self.registry.get_sample_value(name, labels)


@contextmanager
def running(text: str, keys_dir: Path | None) -> Iterator[Stack]:
    registry = CollectorRegistry()
    control = Control(
        profile(text),
        devices=2,
        metrics=orchestrator_metrics(registry),
        keys_dir=keys_dir,
        state_address="tcp://127.0.0.1:*",
        report_address="tcp://127.0.0.1:*",
    )
    context = zmq.Context()
    with control:
        yield Stack(control, registry, context, keys_dir)
        context.destroy(linger=0)


def hear(socket: zmq.Socket[bytes]) -> ChannelState:
    assert socket.poll(10_000), "no state arrived"
    return state.decode(socket.recv())


def hear_epoch(socket: zmq.Socket[bytes], epoch: int) -> ChannelState:
    while (heard := hear(socket)).epoch != epoch:
        pass
    return heard


def eventually(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < deadline, "did not happen within 10 s"
        time.sleep(0.01)


QUEUE = {"packets": 9, "drops": 0, "overflows": 0, "backlog_bytes": 0}


def report(device: int = 0, **fields: Any) -> bytes:
    fields = {
        "v": 2,
        "device": device,
        "backend": "netem",
        "epoch": 1,
        "interval": 0,
        "apply_at_s": 1.0,
        "applied_at_s": 1.5,
        "error": None,
        "down": QUEUE,
        "up": QUEUE,
        **fields,
    }
    packed: bytes = msgpack.packb(fields)
    return packed


@pytest.fixture(params=["curve", "plain"])
def stack(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Stack]:
    with running(STILL, tmp_path if request.param == "curve" else None) as stack:
        yield stack


def test_early_and_late_joiners_hear_what_is_in_force(stack: Stack) -> None:
    early = stack.connect(zmq.SUB, "bs")
    first = hear(early)
    assert first == profile(STILL).state(
        epoch=first.epoch, interval=0, apply_at_s=first.apply_at_s, policy=first.policy
    )
    late = stack.connect(zmq.SUB, "device-1")
    assert hear(late) == first
    assert hear(early) == first  # a repeated state does no harm


def test_a_switch_is_the_next_epoch_and_is_told_ahead(stack: Stack) -> None:
    ears = stack.connect(zmq.SUB, "bs")
    before = hear(ears)
    asked_s = time.time()
    stack.control.use(profile(STILL.replace("100", "200"), "farther"))
    after = hear_epoch(ears, stack.control.status()["epoch"])
    assert asked_s + LEAD_S <= after.apply_at_s <= time.time() + LEAD_S
    assert after.order > before.order
    assert after.profile == "farther"
    assert (after.devices[0].up.rate_bps or 0) < (before.devices[0].up.rate_bps or 0)
    status = stack.control.status()
    assert (status["profile"], status["apply_at_s"]) == ("farther", after.apply_at_s)
    assert status["profile_text"].startswith("description: two devices")
    assert status["links"][1]["up"]["rate_bps"] == 5e6
    assert status["links"][1]["down"]["rate_bps"] is None
    assert status["links"][0]["backend"] is None

    def exported(direction: str, device: str) -> float | None:
        name = "wdmoe_link_requested_rate_bps"
        return stack.metric(name, device=device, direction=direction)

    eventually(lambda: exported("up", "0") == after.devices[0].up.rate_bps)
    assert exported("down", "1") is None
    info = {"profile": "farther", "sha256": after.profile_sha256}
    assert stack.metric("wdmoe_profile_info", **info) == 1
    assert b"wdmoe_interval 0.0" in generate_latest(stack.registry)
    unshaped = STILL.replace("{distance_m: 100, flops: 1e12}", "{down: {}, up: {}}")
    stack.control.use(profile(unshaped))
    eventually(lambda: exported("up", "0") is None)  # not the old profile's rate


def test_intervals_come_ahead_of_time_on_a_schedule_that_does_not_drift() -> None:
    with running(FAST, None) as stack:
        ears = stack.connect(zmq.SUB, "bs")
        heard, left_s = [], []
        for _ in range(20):
            heard.append(hear(ears))
            left_s.append(heard[-1].apply_at_s - time.time())
    orders = [one.order for one in heard]
    assert orders == sorted(orders)
    assert orders[-1][1] >= 15
    start_s = heard[0].apply_at_s - 0.05 * heard[0].interval
    for one in heard:
        assert one.apply_at_s == pytest.approx(start_s + 0.05 * one.interval, abs=1e-6)
    # Half of them at least, whatever else the machine does meanwhile.
    assert sorted(left_s)[10] > LEAD_S / 2
    assert len({one.devices[0] for one in heard}) == len(set(orders))


def test_a_policy_switch_leaves_the_fading_alone() -> None:
    with running(FAST, None) as stack:
        ears = stack.connect(zmq.SUB, "bs")
        heard = [hear(ears) for _ in range(5)]
        asked_s = time.time()
        stack.control.use_policy("wlr", {"theta": 0.2})
        status = stack.control.status()
        while heard[-1].epoch == heard[0].epoch or len(heard) < 12:
            heard.append(hear(ears))
        asked = PolicyState(**status["policy"])
        assert asked.name == "wlr"
        assert asked.params["theta"] == 0.2
        assert set(asked.params) == {"theta", "strict", "max_drops", "latency"}
        before = [one for one in heard if one.policy != asked]
        after = [one for one in heard if one.policy == asked]
        assert [*before, *after] == heard
        assert {one.epoch for one in after} == {status["epoch"]}
        assert before[0].epoch < status["epoch"]
        assert after[0].apply_at_s <= status["apply_at_s"]
        assert after[0].apply_at_s - asked_s < 1
        params = "latency=analytic,theta=0.2,strict=False,max_drops=1"
        info = {"name": "wlr", "params": params}
        eventually(lambda: stack.metric("wdmoe_policy_info", **info) == 1)
    heard = list({one.order: one for one in heard}.values())  # who joins late may hear one twice
    intervals = [one.interval for one in heard]
    assert intervals == sorted(set(intervals))
    for one in heard:
        assert one.devices == profile(FAST).devices(one.interval)
        due_s = heard[0].apply_at_s + 0.05 * (one.interval - heard[0].interval)
        assert one.apply_at_s == pytest.approx(due_s, abs=1e-5)


def test_a_policy_switch_on_a_fixed_channel_is_told_ahead(stack: Stack) -> None:
    ears = stack.connect(zmq.SUB, "bs")
    before = hear(ears)
    assert before.policy == PolicyState("topk")
    asked_s = time.time()
    stack.control.use_policy("top1", {})
    after = hear_epoch(ears, stack.control.status()["epoch"])
    assert asked_s + LEAD_S <= after.apply_at_s <= time.time() + LEAD_S
    assert after.policy == PolicyState("top1")
    assert (after.devices, after.interval) == (before.devices, before.interval)


def test_a_profile_keeps_the_policy_and_begins_where_it_is_told(stack: Stack) -> None:
    stack.control.use_policy("top1", {})
    stack.control.use(profile(FAST), first_interval=1000)
    status = stack.control.status()
    assert status["policy"] == {"name": "top1", "params": {}}
    assert status["interval"] == 1000
    ears = stack.connect(zmq.SUB, "bs")
    heard = hear_epoch(ears, status["epoch"])
    assert heard.interval >= 1000
    assert heard.devices == profile(FAST).devices(heard.interval)


@pytest.mark.parametrize(
    ("name", "params", "message"),
    [
        ("wlf", {}, "policy 'wlf' is unknown; allowed: channel, "),
        ("../wlr", {}, "policy '../wlr' is unknown; "),
        ("wlr", {}, "policy wlr: theta is missing; allowed: 0 to 0.5"),
        ("wlr", {"theta": 0.7}, "policy wlr: theta is 0.7; allowed: 0 to 0.5"),
        ("wlr", {"theta": 0.1, "max_drops": 10**30}, "policy wlr: max_drops is 1000000000000"),
        ("topk", {"theta": 0.1}, "policy topk has no parameter theta; "),
        ("topk", {f"p{i}": 0 for i in range(17)}, "policy topk: has 17 parameters; allowed: at mo"),
    ],
)
def test_a_bad_policy_changes_nothing(
    stack: Stack, name: str, params: dict[str, Param], message: str
) -> None:
    stack.control.use_policy("wlr", {"theta": 0.3})
    before = stack.control.status()
    with pytest.raises(InputError) as refused:
        stack.control.use_policy(name, params)
    assert str(refused.value).startswith(message)
    assert stack.control.status() == before


def test_fading_with_a_memory_begins_where_it_can_be_drawn(stack: Stack) -> None:
    slowly = FAST.replace("coherence_s: 0.05", "coherence_s: 0.05, speed_m_per_s: 0.02")
    moving = profile(slowly)
    epoch = stack.control.status()["epoch"]
    with pytest.raises(InputError, match=r"^first_interval is 10001; allowed: 0 to 10000 under"):
        stack.control.use(moving, first_interval=10_001)
    assert stack.control.status()["epoch"] == epoch
    stack.control.use(moving, first_interval=100)
    assert stack.control.status()["interval"] == 100
    stack.control.use(profile(slowly.replace("0.02", "0.4")), first_interval=1 << 39)
    assert stack.control.status()["interval"] == 1 << 39


def test_a_report_is_shown_with_its_lateness(stack: Stack) -> None:
    epoch = stack.control.status()["epoch"]
    mouth = stack.connect(zmq.PUSH, "device-1")
    began_s = time.time()
    for interval in range(100):
        due_s = began_s + interval
        mouth.send(
            report(1, epoch=epoch, interval=interval, apply_at_s=due_s, applied_at_s=due_s + 0.25)
        )
    mouth.send(report(1, epoch=epoch, interval=100, apply_at_s=began_s + 100, error="no ifb"))
    eventually(lambda: stack.control.status()["links"][1]["error"] == "no ifb")
    link = stack.control.status()["links"][1]
    assert (link["backend"], link["applied_epoch"], link["applied_interval"]) == (
        *("netem", epoch),
        100,
    )
    assert link["lateness"] == pytest.approx(
        {"n": 100, "p50_s": 0.25, "p99_s": 0.25, "max_s": 0.25}, abs=1e-6
    )
    assert 0 <= link["reported_age_s"] < 10
    assert link["queues"]["up"] == QUEUE
    recorded = stack.control.intervals(began_s + 90)
    assert [one.interval for one in recorded] == list(range(90, 100))
    stack.control.use(profile(STILL))
    assert stack.control.status()["links"][1]["lateness"]["n"] == 0  # of an epoch gone by


def test_a_verification_is_kept_and_exported(stack: Stack) -> None:
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
        profile_sha256="0" * 64,
        backends=["tbf"],
        series=[series],
        losses=[],
    )
    stack.control.verified(found)
    assert stack.control.status()["verification"] == found.model_dump()
    link = {"device": "1", "direction": "up"}
    assert stack.metric("wdmoe_link_error_ratio", **link, bytes="65536") == pytest.approx(0.02)
    assert stack.metric("wdmoe_link_measured_rate_bps", **link) == pytest.approx(500_000 / 0.103)


def test_hostile_reports_are_counted_and_do_no_harm(stack: Stack) -> None:
    mouth = stack.connect(zmq.PUSH, "device-1")
    for bad in (b"", b"\xc1", b"\x91" * 1000, report(2), report(1, backend="htb"), b"x" * 9999):
        mouth.send(bad)
    mouth.send_multipart([b"", b"\xc1"])
    mouth.send(report(1))
    eventually(lambda: stack.control.status()["links"][1]["backend"] == "netem")
    assert stack.metric("wdmoe_refused_messages_total", reason="malformed") == 7


def test_a_device_speaks_for_itself_only(tmp_path: Path) -> None:
    with running(STILL, tmp_path) as stack:
        mouth = stack.connect(zmq.PUSH, "device-1")
        mouth.send(report(0))
        mouth.send(report(1))
        eventually(lambda: stack.control.status()["links"][1]["backend"] == "netem")
        assert stack.control.status()["links"][0]["backend"] is None
        assert stack.metric("wdmoe_refused_messages_total", reason="impostor") == 1


def test_a_profile_that_needs_netem_is_refused_without_it(stack: Stack) -> None:
    stack.connect(zmq.PUSH, "device-1").send(report(1, backend="tbf"))
    eventually(lambda: stack.control.status()["links"][1]["backend"] == "tbf")
    epoch = stack.control.status()["epoch"]
    with pytest.raises(InputError, match=r"the kernel under device-1 has no netem .*--allow-deg"):
        stack.control.use(profile(DELAYED))
    assert stack.control.status()["epoch"] == epoch
    stack.control.use(profile(DELAYED), allow_degraded=True)
    assert stack.control.status()["links"][0]["up"]["delay_s"] == 0.01
    assert stack.control.status()["degraded"]
    stack.connect(zmq.PUSH, "device-1").send(report(1))  # the device came back on another kernel
    eventually(lambda: stack.control.status()["links"][1]["backend"] == "netem")
    stack.control.use(profile(DELAYED))
    assert not stack.control.status()["degraded"]


def test_a_profile_of_another_size_is_refused(stack: Stack) -> None:
    three = STILL.replace("{distance_m: 100, flops: 1e12}", "{distance_m: 1}, {distance_m: 1}")
    with pytest.raises(InputError, match="devices has 3 entries; allowed: 2"):
        stack.control.use(profile(three))


def test_an_address_in_use_is_told(stack: Stack) -> None:
    address = stack.control.endpoints[0]
    second = Control(
        profile(STILL),
        devices=2,
        metrics=orchestrator_metrics(CollectorRegistry()),
        keys_dir=stack.keys_dir,
        state_address=address,
    )
    with pytest.raises(StackError, match=f"cannot listen on {address}: Address already"), second:
        pass
