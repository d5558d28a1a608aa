"""Statistics of a sweep, compared with values computed by hand; and its figure."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from orchestrator.contracts.policy import PolicySpec
from orchestrator.contracts.timings import Experts
from orchestrator.errors import InputError
from orchestrator.prompts.prompt_sets import PromptSet
from orchestrator.results import statistics
from orchestrator.results.schema import Choice
from orchestrator.sweep import figure
from orchestrator.sweep.plan import Plan, blocks, policies, slug
from orchestrator.sweep.summary import CellSummary, compare, measure
from tests.unit.results.test_summary import request

OWN = """\
from orchestrator.selection import Gate, Policy, Selection


class Own(Policy):
    mode: str = "plain"
    limit: int | None = None

    def select(self, gate: Gate) -> Selection:
        raise NotImplementedError
"""


def test_medians_and_percentiles_match_values_by_hand() -> None:
    # Of 1 … 5 the 10th percentile is at rank 0.4, the 90th at 3.6.
    spread = statistics.spread([5.0, 1.0, 4.0, 2.0, 3.0])
    assert (spread.p10, spread.p50, spread.p90) == pytest.approx((1.4, 3.0, 4.6))
    estimate = statistics.median([5.0, 1.0, 4.0, 2.0, 3.0])
    assert estimate.value == 3.0
    assert (estimate.low, estimate.high) == (1.0, 5.0)  # each with a chance of above 2.5 %
    assert statistics.median([2.0]) == statistics.Estimate(value=2.0, low=None, high=None)


def test_the_cut_compares_prompt_by_prompt() -> None:
    # Prompts differ tenfold, and each is cut by exactly a quarter: the cut is certain.
    reference = list(np.geomspace(1, 10, 41))
    cut = statistics.cut(reference, [0.75 * value for value in reference])
    assert (cut.value, cut.low, cut.high) == pytest.approx((0.25, 0.25, 0.25))
    # Without the pairs it is uncertain.
    loose = statistics.cut(reference, [0.75 * value for value in reversed(reference)])
    assert loose.value == pytest.approx(0.25)
    assert loose.low is not None
    assert loose.low < 0.1
    assert loose == statistics.cut(reference, [0.75 * value for value in reversed(reference)])


def test_the_interval_has_its_nominal_coverage() -> None:
    rng = np.random.default_rng(1)
    held = 0
    for _ in range(40):
        prompts = rng.gamma(9, 1, 100)
        faster = 0.8 * prompts * rng.normal(1, 0.1, 100)
        cut = statistics.cut(list(prompts), list(faster))
        assert cut.low is not None
        assert cut.high is not None
        held += cut.low <= 0.2 <= cut.high
    assert held >= 35  # 38 are expected


def test_mcnemar_matches_values_by_hand() -> None:
    # 5 prompts only the reference gets right, 1 only the other: 2 · (1 + 6) / 2^6.
    reference = [True] * 5 + [False] + [True] * 10 + [False] * 4
    other = [False] * 5 + [True] + [True] * 10 + [False] * 4
    assert statistics.mcnemar_p(reference, other) == pytest.approx(14 / 64)
    assert statistics.mcnemar_p(other, reference) == pytest.approx(14 / 64)
    assert statistics.mcnemar_p([True, False], [True, False]) == 1.0


def test_blocks_cover_everything_once() -> None:
    assert [*blocks(23, 10)] == [range(10), range(10, 20), range(20, 23)]
    assert [*blocks(10, 10)] == [range(10)]


def test_the_folder_of_a_policy_names_its_parameters() -> None:
    found = policies([0, 0.25], ["random", "wlr:theta=0.3,max_drops=2,latency=measured"])
    assert [slug(policy) for policy in found] == [
        "topk",
        "wlr-theta-0",
        "wlr-theta-0.25",
        "random",
        "wlr-theta-0.3-latency-measured-max_drops-2",
    ]
    assert found[1].params["theta"] == 0.0
    assert found[1].params["max_drops"] == 1  # complete, as the orchestrator reports it


def test_custom_policies_have_folders_of_their_parameters(folder: Path) -> None:
    (folder / "sweeps_own.py").write_text(OWN)
    found = policies([], ["sweeps_own", *(f"sweeps_own:limit={n}" for n in (1, -1, "null"))])
    assert [policy.params for policy in found[1:]] == [
        {"mode": "plain"},  # as the orchestrator reports it: parameters without a value are absent
        {"mode": "plain", "limit": 1},
        {"mode": "plain", "limit": -1},
        {"mode": "plain"},
    ]
    assert len({slug(policy) for policy in found}) == 4
    alike = policies([], ["sweeps_own:mode=a b", "sweeps_own:mode=a:b"])
    with pytest.raises(InputError, match="have the same folder sweeps_own-mode-a-b; allowed: one"):
        Plan(folder, (), (PromptSet("mine", folder, "", ()),), alike)


def test_the_times_of_a_cell_are_summarised() -> None:
    requests = [
        request(0, eq8_s=1.0, batched_s=0.5, downlink_s=0.3, uplink_s=0.2, compute_s=0.1),
        request(1, eq8_s=0.25, batched_s=0.1, downlink_s=0.1, wait_s=0.1),
        request(2, eq8_s=0.0, batched_s=0.0, experts=Experts(used={}, dropped={}, deselected={})),
        request(3, None),
    ]
    measured = measure(requests, layers=1)
    assert measured is not None
    assert measured.latency.value == 0.5
    assert (measured.eq8_p50_s, measured.batched_p50_s) == (0.25, 0.1)
    assert measured.devices_p50_s == pytest.approx(0.2002)  # of 0.6001, 0.2002 and 0.0004
    assert measured.ratio is not None  # 0.5 and 2
    assert (measured.ratio.p10, measured.ratio.p50) == pytest.approx((0.65, 1.25))
    assert measured.devices_ratio is not None  # 1.2002 and 2.002
    assert measured.devices_ratio.p50 == pytest.approx(1.6011)
    assert measured.experts_per_token == pytest.approx(12 / 15)  # 4 + 2 - 1 tokens each
    assert measure([request(0, None)], layers=1) is None
    nothing_shaped = measure(requests[2:], layers=1)
    assert nothing_shaped is not None
    assert nothing_shaped.ratio is None


def test_only_prompts_that_both_answered_are_compared() -> None:
    reference = [request(0), request(1, 0.0), request(2, None), request(3), request(4)]
    faster = [
        item.model_copy(update={"end_to_end_s": 0.4})
        for item in (request(1), request(0), request(2), request(3, None), request(4, 0.0))
    ]
    compared = compare(faster, reference)
    assert compared is not None
    assert compared.n == 3
    assert compared.cut.value == pytest.approx(0.2)
    assert compared.speedup == pytest.approx(1.25)
    assert compared.accuracy_change == 0.0  # one gained, one lost
    assert compared.mcnemar_p == 1.0
    assert compare([request(2)], reference) is None


def test_without_scores_there_is_no_change_of_accuracy() -> None:
    untested = [request(n).model_copy(update={"score": None}) for n in range(3)]
    compared = compare(untested, [request(n) for n in range(3)])
    assert compared is not None
    assert (compared.n, compared.accuracy_change, compared.mcnemar_p) == (3, None, None)
    compared = compare([*untested[:2], request(2, 0.0)], [request(n) for n in range(3)])
    assert compared is not None
    assert (compared.accuracy_change, compared.mcnemar_p) == (-1.0, 1.0)


def test_experts_per_token_of_multiple_choice_count_every_token_read() -> None:
    generated = request(0)
    assert generated.timings is not None
    scored = generated.timings.model_copy(update={"completion_tokens": 0})
    choice = Choice(log_likelihood=-1.0, tokens=1, characters=4)
    chosen = generated.model_copy(update={"timings": scored, "choices": [choice, choice]})
    measured = measure([chosen], layers=4)
    assert measured is not None
    assert measured.experts_per_token == pytest.approx(
        sum(scored.experts.used.values()) / (scored.prompt_tokens * 4)
    )


def test_a_figure_is_drawn_even_from_few_results(tmp_path: Path) -> None:
    measured = measure([request(0)], layers=4)
    cells = [
        CellSummary(
            profile="near-far",
            prompts="facts",
            policy=PolicySpec(name="topk", params={}),
            label=label,
            backends=[],
            n=1,
            errors=0,
            accuracy=None if none else 0.5,
            accuracy_interval=None if none else (0.3, 0.7),
            measured=None if none else measured,
            compared=None,
            warnings=[],
        )
        for label, none in (("topk", False), ("wlr θ=0.1", True), ("random", False))
    ]
    for shown in (cells, cells[:1], cells[1:2]):
        figure.draw(shown, "near-far", tmp_path / "near-far")
        for kind in ("png", "svg"):
            file = tmp_path / f"near-far.{kind}"
            assert file.stat().st_size > 1000
            file.unlink()
