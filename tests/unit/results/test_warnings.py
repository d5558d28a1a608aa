"""Warnings about runs whose results are doubtful."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import pytest

from orchestrator.contracts.http import Interval
from orchestrator.contracts.policy import PolicySpec
from orchestrator.contracts.timings import Experts
from orchestrator.results.summary import summarise
from tests.harness.recorded_runs import WLR, link
from tests.unit.results.test_summary import RUN, request, summed


def test_answers_without_a_score_cause_a_warning() -> None:
    untested = request(0).model_copy(update={"score": None})
    summary = summed([untested, request(1)])
    assert summary.warnings == ["1 of 2 answers have no score"]
    assert (summary.scored, summary.accuracy) == (1, 1.0)


def test_absent_devices_cause_a_warning() -> None:
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
        (PolicySpec(name="topk", params={}), 1),
        (PolicySpec(name="wlr", params={"theta": 0.3}), 1),
    ],
)
def test_a_changed_policy_causes_a_warning(policy: PolicySpec, warned: int) -> None:
    summary = summed([request(0), request(1, policy=policy)])
    assert [line[:22] for line in summary.warnings] == ["the policy was changed"] * warned


@pytest.mark.parametrize(
    ("profile", "epoch", "warned"), [("near-far", 9, 0), ("near-far", 8, 1), ("ideal", 9, 1)]
)
def test_a_request_outside_its_own_epoch_causes_a_warning(
    profile: str, epoch: int, warned: int
) -> None:
    begun = request(1, epoch=epoch, profile=profile).model_copy(update={"epoch": 9})
    summary = summarise(RUN, [request(0), begun], RUN.stack, continuous=False)
    assert len(summary.warnings) == warned
    assert summary.tokens_per_s is None


def test_a_link_that_is_not_as_requested_causes_a_warning() -> None:
    links = [
        link(0),
        link(1, error="tc: no ifb"),
        link(2, backend=None),
    ]
    run = RUN.model_copy(update={"channel": RUN.channel.model_copy(update={"links": links})})
    assert summed([request(0)], run).warnings == [
        "the link of device-1 is not as requested: tc: no ifb (at the run's end)",
        "the link of device-2 is not as requested: it has not reported what it applies (at the "
        "run's end)",
    ]


def test_dropped_packets_and_a_degraded_profile_cause_warnings() -> None:
    # 3 packets had been dropped before the run; they do not count.
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
    assert warning.startswith("degraded: the profile has delay, jitter or loss")


def test_a_links_fault_at_the_end_and_errors_in_between_cause_warnings() -> None:
    silent = link(1).model_copy(update={"fault": "nothing was reported of it for 9 s"})
    mended = link(2).model_copy(update={"errors": 5})
    before = [link(0), link(1), link(2).model_copy(update={"errors": 2})]
    run = RUN.model_copy(update={"channel": RUN.channel.model_copy(update={"links": before})})
    after = run.channel.model_copy(update={"links": [link(0), silent, mended]})
    assert summed([request(0)], run, run.channel).warnings == []
    assert summed([request(0)], run, after).warnings == [
        "the link of device-1 is not as requested: nothing was reported of it for 9 s (at the "
        "run's end)",
        "the link of device-2 is not as requested: 3 reports of an error during the run",
    ]


def test_packets_dropped_by_a_restarted_device_cause_a_warning() -> None:
    run = RUN.model_copy(
        update={"channel": RUN.channel.model_copy(update={"links": [link(0, dropped=9)]})}
    )
    after = run.channel.model_copy(update={"links": [link(0, dropped=4)]})
    (warning,) = summed([request(0)], run, after).warnings
    assert warning.startswith("the queues of device-0 were too short: 4 packets dropped")


def test_a_switch_during_the_last_request_is_warned_of() -> None:
    topk = PolicySpec(name="topk", params={})
    after = RUN.channel.model_copy(update={"epoch": RUN.channel.epoch + 1, "policy": topk})
    (warning,) = summed([request(0), request(1)], RUN, after).warnings
    assert warning == (
        "what is in force was changed during the last request: at the end it was near-far and topk "
        "(epoch 2), it had been near-far and wlr θ=0.2 (epoch 1)"
    )
    later = replace(RUN.stack, channel=after)
    assert summarise(RUN, [request(0)], later, ended_now=False).warnings == []


def applied(device: int, numbers: Iterable[int], late_s: float = 0.001) -> list[Interval]:
    """Return intervals of 2 ms; the first request takes as long as 250 of them."""
    due = {n: 1000.0 + 0.002 * n for n in numbers}
    return [
        Interval(device=device, epoch=1, interval=n, apply_at_s=at_s, applied_at_s=at_s + late_s)
        for n, at_s in due.items()
    ]


@pytest.mark.parametrize(
    ("intervals", "expected"),
    [
        (applied(0, range(200)) + applied(1, range(200)), None),
        (applied(0, [7], late_s=9.0), None),  # the run waits for the first interval
        (applied(0, [*range(250), *range(900, 950)]), None),  # the run was stopped and resumed
        (applied(0, range(101)) + applied(1, [*range(90), 100]), "of 200 {}, 0 {} 0 ms) and of 10"),
        (applied(0, range(11), late_s=0.025), "of 10 {}, 10 {} 25 ms) and of 0"),
    ],
)
def test_late_or_missing_intervals_cause_a_warning(
    intervals: list[Interval], expected: str | None
) -> None:
    warnings = summarise(RUN, [request(0)], RUN.stack, intervals=intervals).warnings
    if expected is None:
        assert warnings == []
        return
    words = ("coherence intervals on devices", "were applied more than 10 ms late (at most")
    assert len(warnings) == 1
    assert warnings[0].startswith(expected.format(*words) + " nothing is known")


def test_a_stack_that_changed_during_the_run_causes_a_warning() -> None:
    faster = RUN.base_station.model_copy(update={"compute_dtype": "bf16"})
    after = replace(RUN.stack, base_station=faster)
    assert summarise(RUN, [request(0)], after).warnings == [
        "the stack was changed during the run: base_station.compute_dtype was None, is bf16"
    ]


def test_containers_with_other_source_than_the_checkout_cause_a_warning() -> None:
    run = RUN.model_copy(update={"source": "0123"})
    warnings = summed([request(0)], run).warnings
    assert [line.split(",")[0] for line in warnings] == [
        "the base station runs other source",
        "the orchestrator runs other source",
    ]
