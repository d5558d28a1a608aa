"""`wdmoe replay` against a small HTTP server in the place of base station and orchestrator."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from orchestrator.cli.replay import replay
from orchestrator.errors import InputError, StackError
from orchestrator.process.build import source
from orchestrator.results.schema import Request, Run
from orchestrator.results.summary import Summary, summarise
from tests.harness.replay_stack import CHANNEL, INTERVALS, ROUTING, prompt, received


def invoke(url: str, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> tuple[str, Any]:
    """Run `wdmoe replay` with these arguments; return its output and the error it ends with."""
    monkeypatch.setenv("WDMOE_BS_URL", url)
    monkeypatch.setenv("WDMOE_ORCHESTRATOR_URL", url)
    command = typer.Typer()
    command.command()(replay)
    result = CliRunner().invoke(command, arguments)
    return result.stdout, result.exception


def prompts_file(folder: Path, *texts: str) -> str:
    path = folder / "mine.jsonl"
    path.write_text("".join(prompt(text).model_dump_json() + "\n" for text in texts))
    return f"jsonl:{path}"


def test_a_run_writes_its_files_and_prints_its_table(
    url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    output, error = invoke(url, monkeypatch, prompts_file(tmp_path, "ok 1", "mute", "ok 2"))
    assert error is None
    assert "wlr θ=0.2" in output
    assert max(map(len, output.splitlines()[:-1])) <= 100
    (folder,) = (tmp_path / "runs").iterdir()
    assert folder.name.endswith("-mine-near-far")
    run = Run.model_validate_json((folder / "run.json").read_text())
    assert run.channel.model_dump() == CHANNEL | {"replay": None}
    assert run.base_station.tcp_congestion_control == "cubic"
    assert (run.base_station.compute_dtype, run.base_station.device_timeout_s) == ("fp32", 3.0)
    for build in (run.base_station.build, run.orchestrator.build):
        assert build is not None
        assert build.source == run.source == source()
    lines = (folder / "requests.jsonl").read_text().splitlines()  # also splits at U+2028
    requests = [Request.model_validate_json(line) for line in lines]
    assert [(item.id, item.prompt_id) for item in requests] == [
        (0, "id-ok 1"),
        (1, "id-mute"),
        (2, "id-ok 2"),
    ]
    assert [item.score for item in requests] == [1.0, 0.0, 1.0]
    for item in requests:
        assert item.http_s == pytest.approx(
            item.end_to_end_s - (item.actual_start_s - item.intended_start_s) - 0.0009, abs=2e-6
        )
    applied = (folder / "intervals.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in applied] == INTERVALS
    summary = Summary.model_validate_json((folder / "summary.json").read_text())
    assert summary == summarise(run, requests, run.stack)
    assert summary.accuracy == pytest.approx(2 / 3)
    assert summary.warnings == []


def test_a_run_with_failures_is_summarised_and_ends_with_an_error(
    url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    spec = prompts_file(tmp_path, "ok", "500", "switched", "broken", "unsent")
    out = tmp_path / "run"
    output, error = invoke(url, monkeypatch, spec, "--limit", "4", "--out", str(out), "--json")
    assert isinstance(error, StackError)
    assert str(error).startswith("2 of 4 requests failed, the first (id-500): HTTP 500")
    summary = json.loads(output)
    assert summary == json.loads((out / "summary.json").read_text())
    assert (summary["n"], summary["errors"], summary["accuracy"]) == (4, 2, 1.0)
    failed, changed = summary["warnings"]
    assert failed.startswith("2 of 4 requests failed")
    assert changed.startswith("the profile was changed during the run: 1 of 2 requests did not")
    assert changed.endswith("the first under ideal (epoch 4, not 3)")
    assert len((out / "requests.jsonl").read_text().splitlines()) == 4

    before = (out / "requests.jsonl").read_bytes()
    _, refused = invoke(url, monkeypatch, spec, "--out", str(out))
    assert isinstance(refused, InputError)
    assert "holds a run already (run.json)" in str(refused)
    assert (out / "requests.jsonl").read_bytes() == before


def test_routing_is_recorded_on_request(
    url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    spec = prompts_file(tmp_path, "ok", "opaque")
    _, error = invoke(url, monkeypatch, spec, "--out", str(out), "--routing")
    assert isinstance(error, StackError)
    assert "(id-opaque): the stream ended without routing" in str(error)
    assert [(file.name, file.read_bytes()) for file in (out / "routing").iterdir()] == [
        ("0.npz", ROUTING)
    ]
    warnings = json.loads((out / "summary.json").read_text())["warnings"]
    assert warnings[-1] == "routing was recorded: http and end to end include it"
    _, error = invoke(url, monkeypatch, spec, "--out", str(out), "--resume")
    assert str(error).endswith("run.json: routing was True, it is False now; allowed: the same")


def test_a_stopped_run_can_be_resumed(
    url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    spec, out = prompts_file(tmp_path, "ok 1", "ok 2", "ok 3"), tmp_path / "run"
    arguments = (spec, "--out", str(out), "--json")
    assert invoke(url, monkeypatch, *arguments)[1] is None
    # The state left by a host that went down while writing the second line.
    lines = (out / "requests.jsonl").read_text().splitlines(keepends=True)
    (out / "requests.jsonl").write_text(lines[0] + lines[1][:99])
    (out / "summary.json").unlink()
    began = (out / "run.json").read_bytes()
    received.clear()
    output, error = invoke(url, monkeypatch, *arguments, "--resume")
    assert error is None
    assert [body["prompt"] for body in received] == ["ok 2", "ok 3"]
    after = (out / "requests.jsonl").read_text().splitlines(keepends=True)
    assert after[0] == lines[0]
    assert [json.loads(line)["id"] for line in after] == [0, 1, 2]
    assert (out / "run.json").read_bytes() == began
    summary = json.loads(output)
    assert (summary["n"], summary["warnings"], summary["tokens_per_s"]) == (3, [], None)

    received.clear()
    _, error = invoke(url, monkeypatch, *arguments, "--limit", "2", "--resume")
    assert str(error).endswith("run.json: prompts.items was 3, it is 2 now; allowed: the same")
    run = json.loads(began)
    run["channel"]["policy"]["params"] = {"theta": 0.1}
    (out / "run.json").write_text(json.dumps(run))
    _, error = invoke(url, monkeypatch, *arguments, "--resume")
    assert "channel.policy was wlr θ=0.1, it is wlr θ=0.2 now" in str(error)
    assert received == []


def test_a_new_summary_keeps_the_rates_of_a_run_without_pauses(
    url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    spec, out = prompts_file(tmp_path, "ok 1", "ok 2"), tmp_path / "run"
    arguments = (spec, "--out", str(out), "--json")
    before = json.loads(invoke(url, monkeypatch, *arguments)[0])
    assert before["requests_per_s"] is not None
    again = (*arguments, "--resume", "--goodput-limit-s", "9")
    output, error = invoke(url, monkeypatch, *again)
    assert error is None
    after = json.loads(output)
    assert after["goodput"]["n"] == 2
    assert after == before | {"goodput": after["goodput"]}
    (out / "summary.json").unlink()  # then the rates are unknown
    assert json.loads(invoke(url, monkeypatch, *again)[0])["requests_per_s"] is None


def test_a_run_ends_when_its_stack_does(
    url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    spec, out = prompts_file(tmp_path, "ok", "500", "gone", "ok 3"), tmp_path / "run"
    _, error = invoke(url, monkeypatch, spec, "--out", str(out))
    assert isinstance(error, StackError)
    assert "engine stopped" in str(error)
    lines = (out / "requests.jsonl").read_text().splitlines()
    assert [json.loads(line)["id"] for line in lines] == [0, 1]  # the others are left to --resume
    received.clear()  # it is back


def test_resume_needs_a_folder(url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    spec, out = prompts_file(tmp_path, "ok"), tmp_path / "run"
    _, error = invoke(url, monkeypatch, spec, "--resume")
    assert str(error).startswith("--resume: --out is missing")
    assert invoke(url, monkeypatch, spec, "--out", str(out), "--resume")[1] is None  # a new one
    lines = out / "requests.jsonl"
    lines.write_text(lines.read_text() + "{}\n")
    _, error = invoke(url, monkeypatch, spec, "--out", str(out), "--resume")
    assert isinstance(error, InputError)
    assert "requests.jsonl, line 2: not a request of this version: id: Field" in str(error)


def test_an_unreachable_stack_is_an_error(
    url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    spec, out = prompts_file(tmp_path, "ok"), str(tmp_path / "run")
    _, error = invoke("http://127.0.0.1:9", monkeypatch, spec, "--out", out)
    assert isinstance(error, StackError)
    assert str(error).startswith("the base station does not answer at http://127.0.0.1:9; ")
    _, error = invoke(f"{url}/elsewhere", monkeypatch, spec, "--out", out)
    assert isinstance(error, StackError)
    assert "HTTP 404" in str(error)
    _, error = invoke("localhost:8000", monkeypatch, spec, "--out", out)
    assert isinstance(error, InputError)
    assert not Path(out).exists()
