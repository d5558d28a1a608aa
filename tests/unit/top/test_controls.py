"""What keys switch, at a real orchestrator."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest

from orchestrator import selection
from orchestrator.client.client import Client
from orchestrator.contracts.replay_progress import Progress
from orchestrator.errors import InputError, StackError
from orchestrator.radio import profiles
from orchestrator.results.schema import Policy
from orchestrator.top.controls import Ring, Switches, Worker
from orchestrator.top.live import MAY_SPOIL, SPOILS, Keys
from orchestrator.top.poller import Source
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


def test_profiles_go_round_in_both_directions(client: Client, switches: Switches) -> None:
    place = BUNDLED.index("near-far")
    for step in (1, 1, -1):
        place += step
        assert switches.profile(step) == f"profile {BUNDLED[place]}"
        assert client.channel().profile == BUNDLED[place]
    seen = {switches.profile(1) for _ in BUNDLED}
    assert seen == {f"profile {name}" for name in BUNDLED}


def test_policies_go_round_and_wlr_gets_a_theta(client: Client, switches: Switches) -> None:
    seen = {switches.policy(-1) for _ in selection.names()}
    assert "policy wlr θ=0.2" in seen
    assert len(seen) == len(selection.names())


def test_theta_goes_up_and_down_and_other_parameters_stay(
    client: Client, switches: Switches
) -> None:
    assert switches.theta(-1) == "policy wlr θ=0.2"
    client.use_policy(Policy(name="wlr", params={"theta": 0.43, "strict": True, "max_drops": 2}))
    for theta in (0.48, 0.5):
        switches.theta(1)
        policy = client.channel().policy
        assert policy.params["theta"] == pytest.approx(theta)
        assert (policy.params["strict"], policy.params["max_drops"]) == (True, 2)
    epoch = client.channel().epoch
    assert switches.theta(1) == "θ is 0.5; allowed: 0 to 0.5"
    assert client.channel().epoch == epoch
    for _ in range(9):
        switches.theta(-1)
    assert client.channel().policy.params["theta"] == pytest.approx(0.05)


def test_a_name_that_is_refused_is_passed_by_the_next_key() -> None:
    ring, names = Ring(), ["a", "b", "c"]
    assert [ring.next(names, "a", 1) for _ in range(3)] == ["b", "c", "a"]
    assert ring.next(names, "c", -1) == "b"


@pytest.mark.parametrize(("step", "name"), [(1, "a"), (-1, "c")])
def test_from_a_name_of_ones_own_it_goes_to_an_end(step: int, name: str) -> None:
    assert Ring().next(["a", "b", "c"], "mine", step) == name


def test_a_refusal_is_one_line_and_the_next_switch_is_done() -> None:
    def refused() -> str:
        raise InputError("profile x:\n  no")

    def silent() -> str:
        raise StackError("nobody answers")

    worker = Worker()
    worker.do(refused)
    eventually(lambda: worker.message == "profile x: no")
    worker.do(silent)
    eventually(lambda: worker.message == "nobody answers")
    worker.do(lambda: "done")
    eventually(lambda: worker.message == "done")


def test_under_a_replay_a_key_switches_when_pressed_twice(
    client: Client, switches: Switches, orchestrator: str
) -> None:
    worker = Worker()
    keys = Keys(switches, worker, Source(NOWHERE, orchestrator))
    client.tell(REPLAY)
    keys.press("x")
    keys.press("+")
    eventually(lambda: worker.message == SPOILS)
    keys.press("p")
    keys.press("p")
    after = BUNDLED[(BUNDLED.index("near-far") + 1) % len(BUNDLED)]
    eventually(lambda: worker.message == f"profile {after}")
    assert client.channel().policy.name == "topk"
    keys.press("p")
    eventually(lambda: worker.message == SPOILS)
    client.tell(REPLAY.model_copy(update={"running": False}))
    keys.press("-")
    eventually(lambda: worker.message == "policy wlr θ=0.2")


def test_a_replay_may_run_where_nobody_says(client: Client, switches: Switches) -> None:
    worker = Worker()
    keys = Keys(switches, worker, Source(NOWHERE, NOWHERE))
    keys.press("+")
    eventually(lambda: worker.message == MAY_SPOIL)
    assert client.channel().policy.name == "topk"
    keys.press("+")
    eventually(lambda: worker.message == "policy wlr θ=0.2")
