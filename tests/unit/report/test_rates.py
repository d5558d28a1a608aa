"""Link rates in reports: the rates during requests, and their figure."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.contracts.http import Interval
from orchestrator.radio import profiles
from orchestrator.report import load, rates
from orchestrator.report.figures import resample
from tests.harness.recorded_runs import BEGIN_S, record, report_of

pytestmark = pytest.mark.slow


def test_rates_over_time_are_those_of_the_profile(tmp_path: Path) -> None:
    read = load.read([record(tmp_path / "a", "mobility")]).runs
    found = rates.over_time(read)
    assert found is not None
    assert found.begin_s[0] == BEGIN_S - 1
    device = profiles.find("mobility").devices(17)[3]
    assert device.up.rate_bps is not None
    assert found.mbps[17, 3, 1] == pytest.approx(device.up.rate_bps / 1e6)
    begin_s = float(found.begin_s[17])
    assert found.least_mbps(begin_s, begin_s + 0.01) == found.mbps[17].min()


def test_rates_of_a_static_profile_are_those_of_each_request_s_draw(tmp_path: Path) -> None:
    folder = record(tmp_path / "a", "near-far")
    lines = [
        Interval(device=0, epoch=n, interval=n, apply_at_s=BEGIN_S + n, applied_at_s=BEGIN_S + n)
        for n in range(12)
    ]
    text = "".join(f"{line.model_dump_json()}\n" for line in lines)
    (folder / "intervals.jsonl").write_text(text)
    found = rates.over_time(load.read([folder]).runs)
    assert found is not None
    for number in (0, 11):
        device = profiles.find("near-far").devices(number)[3]
        assert device.up.rate_bps is not None
        assert found.mbps[number, 3, 1] == pytest.approx(device.up.rate_bps / 1e6)
    assert "Rank correlation (Spearman)" in report_of(tmp_path / "out", folder)


def test_a_draw_other_than_the_first_is_reproduced(tmp_path: Path) -> None:
    folder = record(tmp_path / "a", "near-far")
    run_json = json.loads((folder / "run.json").read_text())
    run_json["channel"]["interval"] = 5
    (folder / "run.json").write_text(json.dumps(run_json))
    found = rates.over_time(load.read([folder]).runs)
    assert found is not None
    device = profiles.find("near-far").devices(5)[3]
    assert device.up.rate_bps is not None
    assert (found.mbps[0, 3, 1], found.lasts_s) == (pytest.approx(device.up.rate_bps / 1e6), None)


def test_a_device_out_of_reach_is_reported(tmp_path: Path) -> None:
    text = report_of(tmp_path / "out", record(tmp_path / "a", "outage"))
    assert "device 5 was out of reach" in text


def test_outages_are_counted_and_drawn(tmp_path: Path) -> None:
    text = profiles.find("mobility").text.replace("seed: 7", "seed: 7\noutage_bps: 100e6")
    folder = record(tmp_path / "a", "mobility")
    run_json = json.loads((folder / "run.json").read_text())
    run_json["channel"]["profile_text"] = text
    (folder / "run.json").write_text(json.dumps(run_json))
    text = report_of(tmp_path / "out", folder)
    assert "devices were in outage" in text
    assert ">outage</text>" in text


def test_requests_of_a_long_run_cover_all_their_intervals(tmp_path: Path) -> None:
    read = load.read([record(tmp_path / "a", "mobility", count=200)]).runs
    found = rates.over_time(read)
    assert found is not None
    assert (len(found.begin_s), found.every) == (
        len({line.interval for line in read[0].intervals}),
        1,
    )
    assert len(found.begin_s) > resample.MOST
    middle = len(found.begin_s) // 2
    end_s = float(found.begin_s[middle + 3])
    slowest = found.mbps[middle : middle + 3].min(axis=(1, 2))
    assert found.least_mbps(float(found.begin_s[middle]), end_s) == pytest.approx(slowest.mean())
    assert len(resample.columns(found)[1]) == resample.MOST


def test_a_run_whose_rates_are_not_all_computed_has_no_correlation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = record(tmp_path / "a", "mobility")
    assert "Rank correlation" in report_of(tmp_path / "all", folder)
    monkeypatch.setattr(rates, "COMPUTED", 50)
    text = report_of(tmp_path / "thinned", folder)
    assert "Rank correlation" not in text
    assert "too few to correlate rates and times" in text


@given(st.integers(resample.MOST + 1, 4 * resample.MOST), st.integers(0, 2**32 - 1))
def test_averaged_columns_keep_the_mean(count: int, seed: int) -> None:
    drawn = np.random.default_rng(seed).uniform(0, 100, (count, 2, 2))
    found = rates.Rates(BEGIN_S + 0.25 * np.arange(float(count)), drawn, 0.25)
    edges, means = resample.columns(found)
    assert means.shape == (resample.MOST, 2, 2)
    assert edges[[0, -1]] - BEGIN_S == pytest.approx([0, 0.25 * count])
    assert means.mean(axis=0) == pytest.approx(drawn.mean(axis=0), rel=1e-5)


def test_averaged_columns_are_blank_where_rates_are_unknown_and_0_in_an_outage() -> None:
    begins = np.concatenate([np.arange(600.0), 1000 + np.arange(600.0)])
    drawn = np.full((1200, 1, 2), 8.0)
    drawn[100:200, 0, 0] = 0.0
    edges, means = resample.columns(rates.Rates(begins, drawn, 1.0))
    middles = (edges[1:] + edges[:-1]) / 2
    down = means[:, 0, 0]
    assert np.isnan(down[(middles > 605) & (middles < 995)]).all()
    assert (down[(middles > 105) & (middles < 195)] == 0).all()
    assert down[middles < 95] == pytest.approx(8.0)
    assert down[middles > 1005] == pytest.approx(8.0)
