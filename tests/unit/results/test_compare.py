"""`wdmoe compare`: two runs on their common prompts, checked by hand."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from orchestrator.contracts.http import Build
from orchestrator.contracts.policy import PolicySpec
from orchestrator.results.compare import compare
from orchestrator.results.run_folder import RunFolder
from orchestrator.results.schema import Arrivals, Request, Run
from tests.harness.command import Wdmoe
from tests.unit.results.test_summary import RUN, request

TOPK = PolicySpec(name="topk", params={})


def answered(number: int, end_to_end_s: float, score: float | None = 1.0, **fields: Any) -> Request:
    changed = {"end_to_end_s": end_to_end_s, "time_to_first_token_s": end_to_end_s / 2}
    return request(number, score).model_copy(
        update={**(changed if score is not None else {}), **fields}
    )


def folder(path: Path, requests: Sequence[Request], run: Run = RUN) -> Path:
    with closing(RunFolder(path, run)) as written:
        for item in requests:
            written.add(item)
    return path


def test_a_comparison_by_hand(tmp_path: Path) -> None:
    # Prompts differ tenfold; B takes three quarters of the time, to the millisecond.
    times = [0.1, 0.2, 0.4, 0.8, 1.0]
    a = folder(tmp_path / "a", [answered(n, t, 1.0) for n, t in enumerate(times)])
    right = [1.0, 0.0, 0.0, 1.0, 1.0]
    b = folder(
        tmp_path / "b",
        # In another order: the order in which they ended.
        [answered(n, 0.75 * t, right[n]) for n, t in reversed(list(enumerate(times)))],
    )
    found = compare(a, b)
    assert (found.prompts, found.only_a, found.only_b, found.failed) == (5, 0, 0, 0)
    assert found.differences == []
    assert found.end_to_end is not None
    assert (found.end_to_end.a_p50_s, found.end_to_end.b_p50_s) == pytest.approx((0.4, 0.3))
    ratio, difference = found.end_to_end.ratio, found.end_to_end.difference_s
    assert (ratio.value, ratio.low, ratio.high) == pytest.approx((0.75, 0.75, 0.75))
    assert (difference.value, difference.high) == pytest.approx((-0.1, -0.025))
    assert found.time_to_first_token is not None
    assert found.time_to_first_token.a_p50_s == pytest.approx(0.2)
    assert found.accuracy is not None
    assert (found.accuracy.a, found.accuracy.b) == pytest.approx((1.0, 0.6))
    assert found.accuracy.change == pytest.approx(-0.4)
    assert (found.accuracy.only_a_right, found.accuracy.only_b_right) == (2, 0)
    assert found.accuracy.mcnemar_p == pytest.approx(0.5)
    assert found.accuracy_norm is None


def test_prompts_of_only_one_run_are_counted(tmp_path: Path) -> None:
    a = folder(
        tmp_path / "a", [answered(0, 0.1), answered(1, 0.1), answered(2, 0.1), answered(5, 9)]
    )
    b = folder(
        tmp_path / "b",
        [
            answered(1, 0.2),
            answered(2, 0.2, None),
            answered(3, 0.2),
            answered(4, 0.2),
            answered(5, 0.2, expected="another question of the same number"),
        ],
    )
    found = compare(a, b)
    assert (found.prompts, found.only_a, found.only_b, found.failed) == (2, 2, 3, 1)
    assert found.end_to_end is not None
    assert found.end_to_end.n == 1
    assert found.end_to_end.ratio.value == pytest.approx(2)
    assert found.end_to_end.ratio.low is None  # a single prompt has no interval


def test_prompts_are_paired_by_id_not_by_position(tmp_path: Path) -> None:
    a = folder(tmp_path / "a", [answered(0, 0.1, prompt_id="x"), answered(1, 0.2, prompt_id="y")])
    b = folder(tmp_path / "b", [answered(0, 0.4, prompt_id="y")])
    found = compare(a, b)
    assert found.end_to_end is not None
    assert found.end_to_end.ratio.value == pytest.approx(2)


def test_normalised_scores_and_choices_without_a_first_token(tmp_path: Path) -> None:
    choice: dict[str, Any] = {"time_to_first_token_s": None}
    a = folder(tmp_path / "a", [answered(n, 0.1, 0.0, score_norm=1.0, **choice) for n in range(3)])
    b = folder(tmp_path / "b", [answered(n, 0.1, 1.0, score_norm=0.0, **choice) for n in range(3)])
    found = compare(a, b)
    assert found.time_to_first_token is None
    assert found.accuracy is not None
    assert found.accuracy_norm is not None
    assert (found.accuracy.change, found.accuracy_norm.change) == (1, -1)


def test_the_runs_conditions_are_compared(tmp_path: Path, wdmoe: Wdmoe) -> None:
    channel = RUN.channel.model_copy(update={"policy": TOPK, "seed": 8})
    arrivals = Arrivals(kind="poisson", rate_per_s=5.0, seed=1, concurrency=None)
    other = RUN.model_copy(update={"channel": channel, "arrivals": arrivals})
    a = folder(tmp_path / "a", [answered(0, 0.1), answered(1, 0.3)])
    b = folder(tmp_path / "b", [answered(0, 0.2), answered(1, 0.4)], other)
    differences = {item.field: (item.a, item.b) for item in compare(a, b).differences}
    assert differences == {
        "channel.policy": ("wlr θ=0.2", "topk"),
        "channel.seed": ("7", "8"),
        "arrivals.kind": ("closed", "poisson"),
        "arrivals.rate_per_s": ("None", "5.0"),
        "arrivals.seed": ("None", "1"),
        "arrivals.concurrency": ("1", "None"),
    }
    shown = wdmoe("compare", str(a), str(b))
    assert shown.code == 0
    assert "channel.policy" in shown.out
    assert "2 prompts are in both runs\n" in shown.out
    assert any("End to end p50, ms" in line and "200.0" in line for line in shown.out.splitlines())
    assert wdmoe.json("compare", str(a), str(b))["end_to_end"]["ratio"]["value"] == pytest.approx(
        1.5
    )


def test_differences_between_stacks_are_listed(tmp_path: Path) -> None:
    packages = {"torch": "2.13.0"}
    old = Build(version="0.1", python="3.11.2", source="abc", packages=packages)
    station = RUN.base_station.model_copy(update={"compute_dtype": "fp32", "build": old})
    changed = {
        "compute_dtype": "bf16",
        "device_timeout_s": 20.0,
        "build": old.model_copy(update={"source": "def", "packages": {"torch": "2.9.0"}}),
    }
    runs = [
        RUN.model_copy(update={"base_station": station, "source": "abc"}),
        RUN.model_copy(
            update={"base_station": station.model_copy(update=changed), "source": "fed"}
        ),
    ]
    a, b = (folder(tmp_path / str(n), [answered(0, 0.1)], run) for n, run in enumerate(runs))
    assert {item.field: (item.a, item.b) for item in compare(a, b).differences} == {
        "base_station.compute_dtype": ("fp32", "bf16"),
        "base_station.device_timeout_s": ("None", "20.0"),
        "base_station.build.source": ("abc", "def"),
        "base_station.build.packages.torch": ("2.13.0", "2.9.0"),
        "source": ("abc", "fed"),
    }


def test_a_pair_that_cannot_be_compared_is_refused_in_one_line(
    tmp_path: Path, wdmoe: Wdmoe
) -> None:
    a = folder(tmp_path / "a", [answered(0, 0.1)])
    b = folder(tmp_path / "b", [answered(1, 0.1)])
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep" / "sweep.json").write_text("{}")
    for pair, message in (
        ((a, b), "no prompt was sent in both; allowed: two runs with prompts in common"),
        ((a, tmp_path / "none"), "none/run.json: No such file or directory"),
        (
            (tmp_path / "sweep", a),
            "sweep: is a sweep; allowed: one run of it, DIR/PROFILE/",
        ),
    ):
        refused = wdmoe("compare", *map(str, pair))
        assert (refused.code, refused.out) == (2, "")
        (line,) = refused.err.splitlines()
        assert message in line


@settings(max_examples=20)
@given(st.lists(st.tuples(st.floats(0.01, 10), st.floats(0.01, 10)), min_size=2, max_size=20))
@example([(0.5, 0.1245398548875129)] * 2)  # its interval's bounds differ by rounding
def test_swapping_the_runs_inverts_the_comparison(
    tmp_path_factory: pytest.TempPathFactory, pairs: list[tuple[float, float]]
) -> None:
    path = tmp_path_factory.mktemp("runs")
    a = folder(path / "a", [answered(n, time_s) for n, (time_s, _) in enumerate(pairs)])
    b = folder(path / "b", [answered(n, time_s) for n, (_, time_s) in enumerate(pairs)])
    there, back = compare(a, b).end_to_end, compare(b, a).end_to_end
    assert there is not None
    assert back is not None
    assert there.ratio.value * back.ratio.value == pytest.approx(1)
    assert there.difference_s.value == pytest.approx(-back.difference_s.value)
    low, high = there.ratio.low, there.ratio.high
    assert low is not None
    assert high is not None
    assert 0 < low <= high
