"""What makes a run's numbers doubtful is told above them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import pytest

from orchestrator.results.schema import Experts, Interval, Policy
from orchestrator.results.summary import summarise
from tests.harness.recorded_runs import WLR, link
from tests.unit.results.test_summary import RUN, request, summed


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
    summary = summarise(RUN, [request(0), begun], RUN.stack, continuous=False)
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
        "the link of device-1 is not as asked: tc: no ifb (at the run's end)",
        "the link of device-2 is not as asked: it has not reported what it applies (at the run's "
        "end)",
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


def test_a_fault_of_a_link_at_the_end_is_told_and_errors_in_between_too() -> None:
    silent = link(1).model_copy(update={"fault": "nothing was reported of it for 9 s"})
    mended = link(2).model_copy(update={"errors": 5})
    before = [link(0), link(1), link(2).model_copy(update={"errors": 2})]
    run = RUN.model_copy(update={"channel": RUN.channel.model_copy(update={"links": before})})
    after = run.channel.model_copy(update={"links": [link(0), silent, mended]})
    assert summed([request(0)], run, run.channel).warnings == []
    assert summed([request(0)], run, after).warnings == [
        "the link of device-1 is not as asked: nothing was reported of it for 9 s (at the run's "
        "end)",
        "the link of device-2 is not as asked: 3 reports of an error during the run",
    ]


def test_packets_that_a_restarted_device_dropped_are_told() -> None:
    run = RUN.model_copy(
        update={"channel": RUN.channel.model_copy(update={"links": [link(0, dropped=9)]})}
    )
    after = run.channel.model_copy(update={"links": [link(0, dropped=4)]})
    (warning,) = summed([request(0)], run, after).warnings
    assert warning.startswith("the queues of device-0 were too short: 4 packets dropped")


def test_a_switch_during_the_last_request_is_told() -> None:
    topk = Policy(name="topk", params={})
    after = RUN.channel.model_copy(update={"epoch": RUN.channel.epoch + 1, "policy": topk})
    (warning,) = summed([request(0), request(1)], RUN, after).warnings
    assert warning == (
        "what is in force was changed during the last request: at the end it was near-far and topk "
        "(epoch 2), it had been near-far and wlr θ=0.2 (epoch 1)"
    )
    later = replace(RUN.stack, channel=after)
    assert summarise(RUN, [request(0)], later, ended_now=False).warnings == []


def applied(device: int, numbers: Iterable[int], late_s: float = 0.001) -> list[Interval]:
    """Intervals of 2 ms; the first request takes as long as 250 of them."""
    due = {n: 1000.0 + 0.002 * n for n in numbers}
    return [
        Interval(device=device, epoch=1, interval=n, apply_at_s=at_s, applied_at_s=at_s + late_s)
        for n, at_s in due.items()
    ]


@pytest.mark.parametrize(
    ("intervals", "told"),
    [
        (applied(0, range(200)) + applied(1, range(200)), None),
        (applied(0, [7], late_s=9.0), None),  # where it begins is waited for
        (applied(0, [*range(250), *range(900, 950)]), None),  # it was stopped, and went on
        (applied(0, range(101)) + applied(1, [*range(90), 100]), "of 200 {}, 0 {} 0 ms) and of 10"),
        (applied(0, range(11), late_s=0.025), "of 10 {}, 10 {} 25 ms) and of 0"),
    ],
)
def test_intervals_that_came_late_or_never_are_told(
    intervals: list[Interval], told: str | None
) -> None:
    warnings = summarise(RUN, [request(0)], RUN.stack, intervals=intervals).warnings
    if told is None:
        assert warnings == []
        return
    words = ("coherence intervals on devices", "were applied more than 10 ms late (at most")
    assert len(warnings) == 1
    assert warnings[0].startswith(told.format(*words) + " nothing is known")


def test_a_stack_that_was_changed_during_the_run_is_told() -> None:
    faster = RUN.base_station.model_copy(update={"compute_dtype": "bf16"})
    after = replace(RUN.stack, base_station=faster)
    assert summarise(RUN, [request(0)], after).warnings == [
        "the stack was changed during the run: base_station.compute_dtype was None, is bf16"
    ]


def test_containers_of_other_source_than_the_checkouts_are_told() -> None:
    run = RUN.model_copy(update={"source": "0123"})
    warnings = summed([request(0)], run).warnings
    assert [line.split(",")[0] for line in warnings] == [
        "the base station runs other source",
        "the orchestrator runs other source",
    ]
