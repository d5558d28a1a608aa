"""The keys that switch profile and policy, with a real orchestrator."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest

from orchestrator import selection
from orchestrator.client.client import Client
from orchestrator.contracts.policy import PolicySpec
from orchestrator.contracts.replay_progress import Progress
from orchestrator.errors import InputError, StackError
from orchestrator.radio import profiles
from orchestrator.top.controls import Ring, Switches, Worker
from orchestrator.top.live import MAY_SPOIL, SPOILS, Keys
from orchestrator.top.poller import Poller
from tests.harness.control_plane import eventually

NOWHERE = "http://127.0.0.1:9"
REPLAY = Progress(
    prompts="facts", planned=20, done=8, failed=0, scored=8, score_sum=6.0, running=True
)
BUNDLED = [profile.name for profile in profiles.bundled()]


@pytest.fixture
def client(orchestrator: str) -> Iterator[Client]:
    with closing(Client("http://127.0.0.1:9", orchestrator)) as made:
        yield made


@pytest.fixture
def switches(client: Client) -> Switches:
    return Switches(client)


def test_profiles_cycle_in_both_directions(client: Client, switches: Switches) -> None:
    place = BUNDLED.index("near-far")
    for step in (1, 1, -1):
        place += step
        assert switches.profile(step) == f"profile {BUNDLED[place]}"
        assert client.status().profile == BUNDLED[place]
    seen = {switches.profile(1) for _ in BUNDLED}
    assert seen == {f"profile {name}" for name in BUNDLED}


def test_policies_cycle_and_wlr_gets_a_theta(client: Client, switches: Switches) -> None:
    seen = {switches.policy(-1) for _ in selection.names()}
    assert "policy wlr θ=0.2" in seen
    assert len(seen) == len(selection.names())


def test_theta_goes_up_and_down_and_other_parameters_stay(
    client: Client, switches: Switches
) -> None:
    assert switches.theta(-1) == "policy wlr θ=0.2"
    client.use_policy(
        PolicySpec(name="wlr", params={"theta": 0.43, "strict": True, "max_drops": 2})
    )
    for theta in (0.48, 0.5):
        switches.theta(1)
        policy = client.status().policy
        assert policy.params["theta"] == pytest.approx(theta)
        assert (policy.params["strict"], policy.params["max_drops"]) == (True, 2)
    epoch = client.status().epoch
    assert switches.theta(1) == "θ is 0.5; allowed: 0 to 0.5"
    assert client.status().epoch == epoch
    for _ in range(9):
        switches.theta(-1)
    assert client.status().policy.params["theta"] == pytest.approx(0.05)


def test_the_next_key_skips_a_refused_name() -> None:
    ring, names = Ring(), ["a", "b", "c"]
    assert [ring.next(names, "a", 1) for _ in range(3)] == ["b", "c", "a"]
    assert ring.next(names, "c", -1) == "b"


@pytest.mark.parametrize(("step", "name"), [(1, "a"), (-1, "c")])
def test_an_unknown_name_is_followed_by_the_first_or_last(step: int, name: str) -> None:
    assert Ring().next(["a", "b", "c"], "mine", step) == name


def test_a_refusal_is_one_line_and_does_not_block_the_next_switch() -> None:
    def refused() -> str:
        raise InputError("profile x:\n  no")

    def silent() -> str:
        raise StackError("no answer")

    worker = Worker()
    worker.do(refused)
    eventually(lambda: worker.message == "profile x: no")
    worker.do(silent)
    eventually(lambda: worker.message == "no answer")
    worker.do(lambda: "done")
    eventually(lambda: worker.message == "done")


def test_during_a_replay_a_key_must_be_pressed_twice(
    client: Client, switches: Switches, orchestrator: str
) -> None:
    worker = Worker()
    keys = Keys(switches, worker, Poller(Client(NOWHERE, orchestrator)))
    client.post_progress(REPLAY)
    keys.press("x")
    keys.press("+")
    eventually(lambda: worker.message == SPOILS)
    keys.press("p")
    keys.press("p")
    after = BUNDLED[(BUNDLED.index("near-far") + 1) % len(BUNDLED)]
    eventually(lambda: worker.message == f"profile {after}")
    assert client.status().policy.name == "topk"
    keys.press("p")
    eventually(lambda: worker.message == SPOILS)
    client.post_progress(REPLAY.model_copy(update={"running": False}))
    keys.press("-")
    eventually(lambda: worker.message == "policy wlr θ=0.2")


def test_a_key_must_be_pressed_twice_while_it_is_unknown_whether_a_replay_runs(
    client: Client, switches: Switches
) -> None:
    worker = Worker()
    keys = Keys(switches, worker, Poller(Client(NOWHERE, NOWHERE)))
    keys.press("+")
    eventually(lambda: worker.message == MAY_SPOIL)
    assert client.status().policy.name == "topk"
    keys.press("+")
    eventually(lambda: worker.message == "policy wlr θ=0.2")
