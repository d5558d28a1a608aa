"""The control plane over real sockets: states ahead of time, late joiners, switches."""

import time

import pytest
import zmq
from prometheus_client import CollectorRegistry, generate_latest

from orchestrator.contracts.channel_state import Param, PolicyState
from orchestrator.contracts.policy import PolicySpec
from orchestrator.control.plane import ControlPlane
from orchestrator.control.timeline import LEAD_S
from orchestrator.errors import InputError, StackError
from orchestrator.metrics import orchestrator_metrics
from tests.harness.control_plane import (
    FAST,
    STILL,
    Stack,
    eventually,
    hear,
    hear_epoch,
    profile,
    running,
)


def test_early_and_late_joiners_receive_what_is_in_force(stack: Stack) -> None:
    early = stack.connect(zmq.SUB, "bs")
    first = hear(early)
    assert first == profile(STILL).state(
        epoch=first.epoch, interval=0, apply_at_s=first.apply_at_s, policy=first.policy
    )
    late = stack.connect(zmq.SUB, "device-1")
    assert hear(late) == first
    assert hear(early) == first  # a repeated state does no harm


def test_a_switch_is_the_next_epoch_and_is_announced_ahead(stack: Stack) -> None:
    ears = stack.connect(zmq.SUB, "bs")
    before = hear(ears)
    requested_s = time.time()
    stack.control.use(profile(STILL.replace("100", "200"), "farther"))
    after = hear_epoch(ears, stack.control.status().epoch)
    assert requested_s + LEAD_S <= after.apply_at_s <= time.time() + LEAD_S
    assert after.order > before.order
    assert after.profile == "farther"
    assert (after.devices[0].up.rate_bps or 0) < (before.devices[0].up.rate_bps or 0)
    status = stack.control.status()
    assert (status.profile, status.apply_at_s) == ("farther", after.apply_at_s)
    assert status.profile_text.startswith("description: two devices")
    assert status.links[1].up.rate_bps == 5e6
    assert status.links[1].down.rate_bps is None
    assert status.links[0].backend is None

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
    orders = [state.order for state in heard]
    assert orders == sorted(orders)
    assert orders[-1][1] >= 15
    start_s = heard[0].apply_at_s - 0.05 * heard[0].interval
    for state in heard:
        assert state.apply_at_s == pytest.approx(start_s + 0.05 * state.interval, abs=1e-6)
    # At least half of them, however busy the host is.
    assert sorted(left_s)[10] > LEAD_S / 2
    assert len({state.devices[0] for state in heard}) == len(set(orders))


def test_a_policy_switch_leaves_the_fading_alone() -> None:
    with running(FAST, None) as stack:
        ears = stack.connect(zmq.SUB, "bs")
        heard = [hear(ears) for _ in range(5)]
        requested_s = time.time()
        stack.control.use_policy("wlr", {"theta": 0.2})
        status = stack.control.status()
        while heard[-1].epoch == heard[0].epoch or len(heard) < 12:
            heard.append(hear(ears))
        announced = PolicyState(status.policy.name, status.policy.params)
        assert announced.name == "wlr"
        assert announced.params["theta"] == 0.2
        assert set(announced.params) == {"theta", "strict", "max_drops", "latency"}
        before = [one for one in heard if one.policy != announced]
        after = [one for one in heard if one.policy == announced]
        assert [*before, *after] == heard
        assert {state.epoch for state in after} == {status.epoch}
        assert before[0].epoch < status.epoch
        assert after[0].apply_at_s <= status.apply_at_s
        assert after[0].apply_at_s - requested_s < 1
        params = "latency=analytic,theta=0.2,strict=False,max_drops=1"
        info = {"name": "wlr", "params": params}
        eventually(lambda: stack.metric("wdmoe_policy_info", **info) == 1)
    heard = list(
        {state.order: state for state in heard}.values()
    )  # a late joiner may receive a state twice
    intervals = [state.interval for state in heard]
    assert intervals == sorted(set(intervals))
    for state in heard:
        assert state.devices == profile(FAST).devices(state.interval)
        due_s = heard[0].apply_at_s + 0.05 * (state.interval - heard[0].interval)
        assert state.apply_at_s == pytest.approx(due_s, abs=1e-5)


def test_a_policy_switch_on_a_fixed_channel_is_announced_ahead(stack: Stack) -> None:
    ears = stack.connect(zmq.SUB, "bs")
    before = hear(ears)
    assert before.policy == PolicyState("topk")
    requested_s = time.time()
    stack.control.use_policy("top1", {})
    after = hear_epoch(ears, stack.control.status().epoch)
    assert requested_s + LEAD_S <= after.apply_at_s <= time.time() + LEAD_S
    assert after.policy == PolicyState("top1")
    assert (after.devices, after.interval) == (before.devices, before.interval)


def test_a_profile_keeps_the_policy_and_begins_at_the_requested_interval(stack: Stack) -> None:
    stack.control.use_policy("top1", {})
    stack.control.use(profile(FAST), first_interval=1000)
    status = stack.control.status()
    assert status.policy == PolicySpec(name="top1", params={})
    assert status.interval == 1000
    ears = stack.connect(zmq.SUB, "bs")
    heard = hear_epoch(ears, status.epoch)
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
    epoch = stack.control.status().epoch
    with pytest.raises(InputError, match=r"^first_interval is 10001; allowed: 0 to 10000 under"):
        stack.control.use(moving, first_interval=10_001)
    assert stack.control.status().epoch == epoch
    stack.control.use(moving, first_interval=100)
    assert stack.control.status().interval == 100
    stack.control.use(profile(slowly.replace("0.02", "0.4")), first_interval=1 << 39)
    assert stack.control.status().interval == 1 << 39


def test_a_profile_of_another_size_is_refused(stack: Stack) -> None:
    three = STILL.replace("{distance_m: 100, flops: 1e12}", "{distance_m: 1}, {distance_m: 1}")
    with pytest.raises(InputError, match="devices has 3 entries; allowed: 2"):
        stack.control.use(profile(three))


def test_an_address_in_use_is_an_error(stack: Stack) -> None:
    address = stack.control.endpoints[0]
    second = ControlPlane(
        profile(STILL),
        devices=2,
        metrics=orchestrator_metrics(CollectorRegistry()),
        keys_dir=stack.keys_dir,
        state_address=address,
    )
    with pytest.raises(StackError, match=f"cannot listen on {address}: Address already"), second:
        pass
