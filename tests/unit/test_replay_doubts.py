"""What makes a run's numbers doubtful is told above them."""

from __future__ import annotations

import pytest

from orchestrator.replay.records import Experts, Policy
from orchestrator.replay.summary import summarise
from tests.unit.recorded_runs import WLR, link
from tests.unit.test_replay_summary import RUN, request, summed


def test_answers_without_a_score_are_told() -> None:
    untested = request(0).model_copy(update={"score": None})
    summary = summed([untested, request(1)])
    assert summary.warnings == ["1 of 2 answers have no score"]
    assert (summary.scored, summary.accuracy) == (1, 1.0)


def test_devices_that_were_away_are_told() -> None:
    away = Experts(used={"0": 6}, dropped={"10": 2, "3": 1}, outage={"1": 5}, deselected={})
    requests = [request(0), request(1, experts=away), request(2, experts=away)]
    assert summed(requests).warnings == [
        "6 tokens, over all layers, lost an expert because a device was absent, late or "
        "unreachable: device-3, device-10"
    ]


@pytest.mark.parametrize(
    ("policy", "warned"),
    [
        (WLR, 0),
        (Policy(name="topk", params={}), 1),
        (Policy(name="wlr", params={"theta": 0.3}), 1),
    ],
)
def test_a_changed_policy_is_told(policy: Policy, warned: int) -> None:
    summary = summed([request(0), request(1, policy=policy)])
    assert [line[:22] for line in summary.warnings] == ["the policy was changed"] * warned


@pytest.mark.parametrize(
    ("profile", "epoch", "warned"), [("near-far", 9, 0), ("near-far", 8, 1), ("ideal", 9, 1)]
)
def test_a_request_is_held_against_the_epoch_that_was_begun_for_it(
    profile: str, epoch: int, warned: int
) -> None:
    begun = request(1, epoch=epoch, profile=profile).model_copy(update={"epoch": 9})
    summary = summarise(RUN, [request(0), begun], RUN.channel, continuous=False)
    assert len(summary.warnings) == warned
    assert summary.tokens_per_s is None


def test_a_link_that_is_not_as_asked_is_told() -> None:
    links = [
        link(0),
        link(1, error="tc: no ifb"),
        link(2, backend=None),
    ]
    run = RUN.model_copy(update={"channel": RUN.channel.model_copy(update={"links": links})})
    assert summed([request(0)], run).warnings == [
        "the link of device-1 is not as asked: tc: no ifb",
        "the link of device-2 is not as asked: it has not reported what it applies",
    ]


def test_dropped_packets_and_a_degraded_profile_are_told() -> None:
    # 3 packets had been dropped before the run, of which it may not speak.
    links = [link(0, dropped=3), link(1)]
    run = RUN.model_copy(update={"channel": RUN.channel.model_copy(update={"links": links})})
    after = run.channel.model_copy(update={"links": [link(0, dropped=5), link(1)]})
    assert summed([request(0)], run).warnings == []
    (warning,) = summed([request(0)], run, after).warnings
    assert warning == (
        "the queues of device-0 were too short: 2 packets dropped since the run began, others' "
        "traffic included"
    )
    (warning,) = summed(
        [request(0)], run, run.channel.model_copy(update={"degraded": True})
    ).warnings
    assert warning.startswith("degraded: the profile asks for delay, jitter or loss")
