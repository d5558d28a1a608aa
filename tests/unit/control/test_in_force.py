"""What is in force survives a restart of the orchestrator: profile, policy and fading."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import zmq
from prometheus_client import CollectorRegistry

from orchestrator.contracts.channel_state import ChannelState
from orchestrator.control.in_force import InForceStore
from orchestrator.control.plane import ControlPlane
from orchestrator.errors import InputError, StackError
from orchestrator.metrics import orchestrator_metrics
from orchestrator.radio import profiles
from tests.harness.control_plane import FAST, STILL, hear, profile

TRACED = """\
description: two devices, one recorded
fading: {kind: none, coherence_s: 0.5}
devices: [{trace: steps.csv}, {down: {}, up: {rate_bps: 5e6}}]
"""
STEPS = "time_s,down_bps,up_bps\n0,10000000,5000000\n0.5,20000000,8000000\n"


@contextmanager
def started(folder: Path, setting: str = "p", text: str = STILL) -> Iterator[ControlPlane]:
    """Yield the control plane of an orchestrator started with WDMOE_PROFILE=`setting`."""
    control = ControlPlane(
        profile(text, setting),
        devices=2,
        metrics=orchestrator_metrics(CollectorRegistry()),
        keys_dir=None,
        store=InForceStore(folder, setting),
        state_address="tcp://127.0.0.1:*",
        report_address="tcp://127.0.0.1:*",
    )
    with control:
        yield control


@contextmanager
def listening(control: ControlPlane) -> Iterator[zmq.Socket[bytes]]:
    """Yield a device's socket for states."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    ears = context.socket(zmq.SUB)
    ears.subscribe(b"")
    ears.connect(control.endpoints[0])
    try:
        yield ears
    finally:
        context.destroy(linger=0)


def heard(control: ControlPlane, count: int) -> list[ChannelState]:
    """Return the next states that a device receives."""
    with listening(control) as ears:
        return [hear(ears) for _ in range(count)]


def test_profile_policy_and_fading_continue_after_a_restart(tmp_path: Path) -> None:
    with started(tmp_path) as control:
        control.use(profile(FAST, "faster"), first_interval=1000)
        control.use_policy("wlr", {"theta": 0.2})
        before, status = heard(control, 9)[-1], control.status()
    with started(tmp_path) as control:
        after, restored = heard(control, 9)[-1], control.status()
    for key in ("profile", "profile_sha256", "policy"):
        assert getattr(restored, key) == getattr(status, key)
    assert after.epoch > before.epoch
    assert after.interval > before.interval > 1000
    assert after.devices == profile(FAST).devices(after.interval)
    # as if there had been no restart
    due_s = before.apply_at_s + 0.05 * (after.interval - before.interval)
    assert after.apply_at_s == pytest.approx(due_s, abs=1e-5)


def test_a_restored_state_takes_effect_ahead_and_not_in_the_past(tmp_path: Path) -> None:
    with started(tmp_path) as control:
        announced_s = control.status().apply_at_s
    with started(tmp_path) as control:
        assert heard(control, 1)[0].apply_at_s > announced_s


def test_a_profile_with_traces_is_restored(tmp_path: Path) -> None:
    traced = profiles.parse(TRACED, "traced", "traced.yaml", {"steps.csv": STEPS})
    with started(tmp_path) as control:
        control.use(traced)
    with started(tmp_path) as control:
        assert control.profile.traces == traced.traces
        assert control.profile.sha256 == traced.sha256


def test_a_state_is_stored_before_it_is_announced(tmp_path: Path) -> None:
    with started(tmp_path) as control, listening(control) as ears:
        for theta in (0.1, 0.2, 0.3):
            control.use_policy("wlr", {"theta": theta})
            while (announced := hear(ears)).policy.params.get("theta") != theta:
                pass
            stored = json.loads((tmp_path / "in_force.json").read_text())
            assert stored["epoch"] == announced.epoch
            assert stored["policy"]["params"]["theta"] == theta


def test_a_state_that_cannot_be_stored_is_not_put_into_force(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    folder.mkdir()
    with started(folder) as control:
        before = control.status()
        folder.rename(tmp_path / "gone")
        with pytest.raises(StackError, match=r"in_force\.json: cannot be written: No such file"):
            control.use_policy("top1", {})
        with pytest.raises(StackError, match=r"profile-\w+\.json: cannot be written"):
            control.use(profile(FAST))
        assert control.status() == before


def test_a_changed_setting_replaces_the_profile_and_keeps_the_policy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with started(tmp_path, "near") as control:
        control.use(profile(FAST, "switched"))
        control.use_policy("top1", {})
        epoch = control.status().epoch
    with started(tmp_path, "far", STILL.replace("100", "200")) as control:
        status = control.status()
    assert (status.profile, status.policy.name) == ("far", "top1")
    assert status.epoch > epoch
    assert "profile far from interval 0 on, policy top1: WDMOE_PROFILE was near" in (
        capsys.readouterr().out
    )


def test_only_the_profile_in_force_is_kept(tmp_path: Path) -> None:
    with started(tmp_path) as control:
        for distance in ("200", "300", "400"):
            control.use(profile(STILL.replace("100", distance)))
        kept = control.profile.sha256
    assert [file.name for file in tmp_path.glob("profile-*")] == [f"profile-{kept}.json"]


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("in_force.json", "{", "", "in_force.json: not what is in force of this version: JSON: "),
        ("in_force.json", '"v": 1', '"v": 9', "in_force.json: not what is in force of this ver"),
        ("in_force.json", '"topk"', '"gone"', "in_force.json: policy 'gone' is unknown; allowed"),
        ("profile-*.json", "100", "101", r"profile-\w+.json: its profile's hash is "),
        ("profile-*.json", "distance_m", "distance", r"profile-\w+.json: devices"),
    ],
)
def test_a_damaged_store_is_refused_in_one_line(
    tmp_path: Path, name: str, old: str, new: str, message: str
) -> None:
    with started(tmp_path):
        (file,) = tmp_path.glob(name)
    file.write_text(file.read_text().replace(old, new, 1))
    with pytest.raises(InputError, match=message) as refused, started(tmp_path):
        pass
    assert "cannot go on: `wdmoe down` forgets it" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_stack_of_another_size_is_refused(tmp_path: Path) -> None:
    with started(tmp_path):
        pass
    three = STILL.replace("devices: [", "devices: [{distance_m: 1}, ")
    with pytest.raises(
        InputError, match=r"in_force.json: has 2 devices, the stack has 3; .*`wdmoe down`"
    ):
        ControlPlane(
            profile(three),
            devices=3,
            metrics=orchestrator_metrics(CollectorRegistry()),
            keys_dir=None,
            store=InForceStore(tmp_path, "p"),
        )
