"""Groups of runs in a report, their names, and their conditions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from orchestrator.report import conditions, load, page
from orchestrator.report.figures import latency
from orchestrator.report.groups import group
from tests.harness.recorded_runs import WLR, record, report_of

pytestmark = pytest.mark.slow


def change(folder: Path, part: str, **fields: Any) -> Path:
    """Change fields in the record of a run."""
    file = folder / "run.json"
    run_json = json.loads(file.read_text())
    run_json[part] |= fields
    file.write_text(json.dumps(run_json))
    return folder


def names(*folders: Path) -> list[str]:
    return [found.name for found in group(load.read(folders).runs)]


def test_runs_of_the_same_prompts_and_profile_form_a_group(tmp_path: Path) -> None:
    runs = [record(tmp_path / "a"), record(tmp_path / "b", policy=WLR)]
    runs += [record(tmp_path / "c", "mobility")]
    groups = group(load.read(runs).runs)
    assert [(found.name, list(found.runs)) for found in groups] == [
        ("facts under near-far", ["topk", "wlr θ=0.2"]),
        ("facts under mobility", ["topk"]),
    ]


def test_runs_of_one_policy_are_distinguished_by_their_folders(tmp_path: Path) -> None:
    runs = [record(tmp_path / name / "run") for name in "ab"] + [record(tmp_path / "other")]
    (found,) = group(load.read(runs).runs)
    assert list(found.runs) == [
        f"topk, run, {tmp_path}/a/run",
        f"topk, run, {tmp_path}/b/run",
        "topk, other",
    ]


@pytest.mark.parametrize(
    ("field", "values", "labels"),
    [
        ("items", (12, 9), ("12 prompts", "9 prompts")),
        ("template", ("", "chat v1, 5 shots"), ("no template", "chat v1, 5 shots")),
        ("shuffle_seed", (None, 3), ("in the file's order", "shuffled by seed 3")),
        ("sha256", ("a" * 64, "b" * 64), ("prompts aaaaaaaa", "prompts bbbbbbbb")),
    ],
)
def test_runs_of_different_prompts_form_groups_named_by_the_difference(
    tmp_path: Path, field: str, values: tuple[Any, Any], labels: tuple[str, str]
) -> None:
    folders = [
        change(record(tmp_path / f"{number}"), "prompts", **{field: value})
        for number, value in enumerate(values)
    ]
    assert names(*folders) == [f"facts under near-far, {text}" for text in labels]


def test_sets_with_similar_names_have_separate_figures(tmp_path: Path) -> None:
    folders = [
        change(record(tmp_path / f"{number}"), "prompts", name=name)
        for number, name in enumerate(["My.Set", "my set", "my set-2"])
    ]
    groups = group(load.read(folders).runs)
    assert len({found.slug for found in groups}) == 3
    written = page.write(load.read(folders), tmp_path / "out")
    assert len(set(written.figures)) == len(written.figures) == 3 * 5 * 2


def test_a_folder_may_have_any_name(tmp_path: Path) -> None:
    folders = [record(tmp_path / name) for name in ("$a_$b", "<b>&", "c" * 100)]
    text = report_of(tmp_path / "out", *folders)
    assert "topk, $a_$b</text>" in text
    assert "topk, &lt;b&gt;&amp;</text>" in text
    assert f"{'c' * 50}</text>" not in text  # a label of that length would leave no room for bars


def test_panels_keep_their_height_with_any_number_of_runs(tmp_path: Path) -> None:
    def panel_height_in(count: int) -> float:
        folders = [record(tmp_path / f"{count}" / f"a-long-name-{q}") for q in range(count)]
        (found,) = group(load.read(folders).runs)
        drawing = latency.distribution(found)
        assert drawing is not None
        drawing.figure.draw_without_rendering()
        (axes,) = drawing.figure.axes
        return float(axes.get_window_extent().height / drawing.figure.dpi)

    assert panel_height_in(12) == pytest.approx(panel_height_in(2), rel=0.1)


def test_conditions_name_the_runs_where_they_differ(tmp_path: Path) -> None:
    folders = [record(tmp_path / "a"), record(tmp_path / "b", policy=WLR)]
    change(folders[1], "base_station", curve=False)
    found = conditions.conditions(group(load.read(folders).runs))
    assert found["Command"] == ["wdmoe replay facts"]
    assert found["Policy"] == ["topk", "wlr θ=0.2"]
    assert found["Wire"] == [
        "fp16, CURVE on (facts under near-far, topk)",
        "fp16, CURVE off (facts under near-far, wlr θ=0.2)",
    ]


def test_conditions_include_template_order_and_arrivals(tmp_path: Path) -> None:
    folder = change(record(tmp_path / "a"), "prompts", template="chat v1", shuffle_seed=4)
    change(folder, "arrivals", kind="trace", trace="my_trace_1.csv", trace_sha256="f" * 64)
    found = conditions.conditions(group(load.read([folder]).runs))
    assert found["Prompts"] == ["facts: 12, sha256 0, template chat v1, shuffled by seed 4"]
    assert found["Arrivals"] == [
        "kind trace, trace my_trace_1.csv, trace sha256 ffffffffffff, time scale 1.0, "
        "concurrency 1, warm-up 0"
    ]
