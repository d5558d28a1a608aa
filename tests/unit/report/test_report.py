"""`wdmoe report`: the content of the page for all kinds of runs, and invalid input."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from orchestrator.errors import InputError
from orchestrator.report import conditions, load, page, tables
from orchestrator.report.groups import group
from tests.harness.command import Wdmoe
from tests.harness.recorded_runs import SLOW, WLR, record, record_sweep, report_of

pytestmark = pytest.mark.slow


def test_every_figure_is_written_as_png_and_svg(tmp_path: Path) -> None:
    folders = [record(tmp_path / "a"), record(tmp_path / "b", policy=WLR)]
    written = page.write(load.read(folders), tmp_path / "out")
    names = {path.name for path in written.figures}
    expected = ("accuracy", "cdf", "split", "eq8", "devices", "timeline", "timeline-2")
    assert names == {
        f"facts-under-near-far-{name}.{kind}" for name in expected for kind in ("png", "svg")
    }
    for file in written.figures:
        content = file.read_bytes()
        if file.suffix == ".png":
            assert content.startswith(b"\x89PNG")
        else:
            ET.fromstring(content)


def test_figures_state_their_findings(tmp_path: Path) -> None:
    text = report_of(tmp_path / "out", record(tmp_path / "a"), record(tmp_path / "b", policy=WLR))
    # 9 parts of 10 ms, compute of 100 ms and 25 ms more in the median, and 5 ms of HTTP.
    assert "wlr θ=0.2 is fastest, 220 ms in the median at an accuracy of 75.0 %" in text
    assert "(95 % interval 46.8 to 91.1 %); topk: 320 ms, 100.0 %." in text
    assert "topk half within 320 ms (n = 12)" in text  # too few for a 95th percentile
    assert (
        "the model of the same messages says 150 ms, Eq. 8, a request&#39;s own tokens one after "
        in text
    )
    assert "Every link kept its rate, 56 to 301 Mbit/s" in text


def test_the_table_compares_runs_and_names_the_part_that_got_slower(
    tmp_path: Path, wdmoe: Wdmoe
) -> None:
    folders = [record(tmp_path / "a", policy=WLR), record(tmp_path / "b", failures=[3])]
    result = wdmoe("report", *map(str, folders), "--out", str(tmp_path / "out"))
    table = (tmp_path / "out" / "table.md").read_text()
    first, second = (line.split(" | ") for line in table.splitlines()[-2:])
    assert first[0] == "| facts<br>near-far"
    assert (first[1], first[2]) == ("wlr θ=0.2<br>12", "75.0<br>46.8–91.1")
    assert first[-1] == "– |"
    assert second[1] == "topk<br>11 of 12"
    # the median goes from 220 to 315 ms without the failed request; all of it is compute
    assert second[-1] == "1.43×<br>+99.6 compute |"
    assert "1.43×" in result.out
    assert "+99.6 compute" in result.out
    assert max(map(len, result.out.splitlines()[:-1])) <= 120


def test_tokens_are_counted_by_device(tmp_path: Path) -> None:
    (found,) = group(load.read([record(tmp_path / "a", policy=WLR)]).runs)
    table = tables.devices(found)
    assert table.columns[3:] == [
        "wlr θ=0.2: worked on",
        "wlr θ=0.2: left out by the policy",
        "wlr θ=0.2: in outage",
    ]
    assert [row[3:] for row in table.rows][3] == ["120", "0", "24"]
    assert [row[3:] for row in table.rows][7] == ["120", "48", "0"]


def test_each_warning_is_shown_once_before_the_results(tmp_path: Path) -> None:
    folders = [record(tmp_path / "a", failures=[3]), record(tmp_path / "b", policy=WLR)]
    groups = group(load.read(folders).runs)
    assert conditions.warnings(groups) == {
        "1 of 12 requests failed; the numbers are those of the others": "facts under near-far, "
        "topk",
        SLOW: "all runs",
    }
    text = report_of(tmp_path / "out", *folders)
    assert text.index("the host is &lt;too&gt; slow &amp; late") < text.index('id="results"')


def test_an_unfinished_run_is_summarised_so_far(tmp_path: Path) -> None:
    folder = record(tmp_path / "a", ended=False)
    lines = (folder / "requests.jsonl").read_text().splitlines(keepends=True)
    (folder / "requests.jsonl").write_text("".join(lines[:5]) + lines[5][:40])
    (run,) = load.read([folder]).runs
    assert run.summary.n == 5
    assert run.summary.warnings == ["the run has not ended: 5 of 12 requests are there"]
    assert run.summary.requests_per_s is None  # there may have been pauses


def test_a_run_without_requests_has_a_page(tmp_path: Path) -> None:
    text = report_of(tmp_path / "out", record(tmp_path / "a", count=0, ended=False))
    assert "the run has not ended: 0 of 0 requests" in text


def test_verified_links_are_shown_with_their_errors(tmp_path: Path) -> None:
    series = {"device": 3, "direction": "up", "size_bytes": 8192, "wire_bits": 70000, "n": 20}
    times = {"expected_s": 0.01, "measured_s": 0.0102, "cost_s": 0.0005, "unshaped_s": 0.0004}
    spread = {"delay_s": 0.0, "p10_s": 0.01, "p90_s": 0.011}
    verified = {
        "verified_at": "2025-01-01",
        "profile": "near-far",
        "profile_sha256": "0",
        "backends": ["tbf"],
        "series": [{**series, **times, **spread}],
        "losses": [],
    }
    folder = record(tmp_path / "a")
    run_json = json.loads((folder / "run.json").read_text())
    run_json["channel"]["verification"] = verified
    (folder / "run.json").write_text(json.dumps(run_json))
    assert "<td>−3.0</td>" in report_of(tmp_path / "out", folder)
    run_json["channel"]["verification"]["series"][0]["n"] = 0
    (folder / "run.json").write_text(json.dumps(run_json))
    with pytest.raises(InputError, match=r"run.json: channel.verification .*: series.0.n: "):
        report_of(tmp_path / "out", folder)


def test_a_sweep_compares_its_policies_with_the_reference(tmp_path: Path) -> None:
    text = report_of(tmp_path / "out", record_sweep(tmp_path / "sweep"))
    assert "<td>75.0 [46.8, 91.1]<br>−25.0, p 0.25</td>" in text
    assert "<td>220 ms, 1.45×<br>31.2<br>" in text
    assert "near-far: from the models to what is measured" in text


def test_an_unfinished_sweep_shows_its_runs(tmp_path: Path) -> None:
    folder = record_sweep(tmp_path / "sweep", ended=False)
    written = page.write(load.read([folder]), tmp_path / "out")
    text = written.page.read_text()
    fault = f"The sweep in {folder} has not ended: its policies are not compared here."
    assert fault in text
    assert "2 runs" in text
    assert written.warnings == [fault, SLOW]


def test_the_command_writes_into_the_first_folder(tmp_path: Path, wdmoe: Wdmoe) -> None:
    folder = record(tmp_path / "a")
    result = wdmoe("report", str(folder), "--json")
    assert result.code == 0
    output = json.loads(result.out)
    assert output["page"] == str(folder / "report" / "index.html")
    assert output["warnings"] == [SLOW]
    assert all(Path(name).exists() for name in output["figures"])


def damaged_line(folder: Path) -> str:
    with (folder / "requests.jsonl").open("a") as lines:
        lines.write('{"id": "x"}\n')
    return f"{folder}/requests.jsonl, line 13: not a request of this version: id: "


def damaged_interval(folder: Path) -> str:
    (folder / "intervals.jsonl").write_text("{}\n")
    return f"{folder}/intervals.jsonl, line 1: not an interval of this version: device: "


def no_run(folder: Path) -> str:
    (folder / "run.json").unlink()
    return f"{folder}: holds neither run.json nor sweep.json; allowed: "


@pytest.mark.parametrize("damage", [damaged_line, damaged_interval, no_run])
def test_a_damaged_folder_is_refused_in_one_line(
    damage: object, tmp_path: Path, wdmoe: Wdmoe
) -> None:
    folder = record(tmp_path / "a")
    assert callable(damage)
    fault = damage(folder)
    result = wdmoe("report", str(folder))
    assert result.code == 2
    assert result.err.startswith(f"wdmoe: {fault}")
    assert result.err.count("\n") == 1
    assert not (folder / "report").exists()


def test_a_folder_that_is_missing_or_given_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere: is not a folder"):
        load.read([tmp_path / "nowhere"])
    folder = record(tmp_path / "a")
    with pytest.raises(InputError, match="is given twice"):
        load.read([folder, folder / "."])
