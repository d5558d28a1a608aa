"""A sweep from its command to its files: turns, going on, what it refuses, what it leaves."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from orchestrator import profiles
from orchestrator.cli.sweep import sweep
from orchestrator.errors import InputError, StackError
from orchestrator.replay import prompt_sets
from orchestrator.replay.client import Client
from orchestrator.replay.prompt_sets import Prompt
from orchestrator.replay.records import Request, Run
from orchestrator.sweep.plan import Plan, policies
from orchestrator.sweep.run import Runner
from tests.unit.serving import serve
from tests.unit.sweep_stack import STILL, app, stack

MOVING = STILL.replace("{kind: none}", "{kind: rayleigh, coherence_s: 0.05}")
WLR = {"theta": 0.2, "strict": False, "max_drops": 1, "latency": "analytic"}


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with serve(app) as url:
        yield url


@pytest.fixture(autouse=True)
def ready(url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    stack.__init__()  # type: ignore[misc]
    monkeypatch.setenv("WDMOE_BS_URL", url)
    monkeypatch.setenv("WDMOE_ORCHESTRATOR_URL", url)
    monkeypatch.chdir(tmp_path)
    for name, text in (("still", STILL), ("moving", MOVING)):
        Path(f"{name}.yaml").write_text(text)


def invoke(*arguments: str) -> tuple[str, Any]:
    """`wdmoe sweep` with these arguments: what it prints, and the error it ends with."""
    command = typer.Typer()
    command.command()(sweep)
    result = CliRunner().invoke(command, arguments)
    return result.stdout, result.exception


def prompts(name: str, *texts: str) -> str:
    items = [
        Prompt(id=f"{name}-{n}", prompt=text, answer="12", max_tokens=5, stop=[])
        for n, text in enumerate(texts)
    ]
    Path(f"{name}.jsonl").write_text("".join(item.model_dump_json() + "\n" for item in items))
    return f"jsonl:{name}.jsonl"


def lines(file: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(file).read_text().splitlines()]


def test_policies_take_turns_in_blocks_of_ten() -> None:
    spec = prompts("mine", *(f"p{n}" for n in range(12)))
    arguments = ("--theta", "0,0.2", "--profile", "still.yaml", "--out", "out")
    output, error = invoke(spec, *arguments)
    assert error is None
    order = [(policy, prompt) for _, policy, prompt, _ in stack.sent]
    first, second = [f"p{n}" for n in range(10)], ["p10", "p11"]
    turns = [("topk", first), ("wlr", first), ("wlr", first)]
    turns += [("wlr", second), ("wlr", second), ("topk", second)]
    assert order == [(policy, prompt) for policy, block in turns for prompt in block]
    assert stack.policy == {"name": "top1", "params": {}}
    assert stack.profile["name"] == "before"
    assert {(one.prompts, one.planned) for one in stack.told} == {("mine", 12)}
    last = stack.told[-1]  # of the cell whose turn was last
    assert (last.done, last.scored, last.score_sum, last.running) == (12, 12, 12.0, False)
    assert all(one.running for one in stack.told[:-1])

    cells = Path("out/still/mine")
    assert sorted(cell.name for cell in cells.iterdir()) == ["topk", "wlr-theta-0", "wlr-theta-0.2"]
    run = Run.model_validate_json((cells / "wlr-theta-0.2/run.json").read_text())
    assert run.channel.policy.params == WLR
    assert [line["id"] for line in lines("out/still/mine/topk/requests.jsonl")] == [*range(12)]
    epochs = [line["epoch"] for line in lines("out/still/mine/topk/intervals.jsonl")]
    assert len(epochs) == 2  # of its own turns only
    summary = json.loads((cells / "topk/summary.json").read_text())
    assert (summary["n"], summary["warnings"]) == (12, [])
    assert max(map(len, output.splitlines())) <= 100
    assert "100.0 ± 0.0" in output
    assert {"sweep.json", "summary.json", "table.md", "still.png", "still.svg"} <= {
        file.name for file in Path("out").iterdir()
    }


def test_each_policy_meets_the_same_fading() -> None:
    spec = prompts("mine", "p0", "p1", "p2")
    _, error = invoke(spec, "--theta", "0.2", "--profile", "moving.yaml", "--out", "out")
    assert error is None
    # 607 s of 50 ms each
    assert [sent[1:] for sent in stack.sent] == [
        ("topk", "p0", 0),
        ("wlr", "p0", 0),
        ("wlr", "p1", 12140),
        ("topk", "p1", 12140),
        ("topk", "p2", 24280),
        ("wlr", "p2", 24280),
    ]


def test_what_it_comes_to() -> None:
    sets = (prompts("one", "p0", "p1 hard", "p2", "p3"), prompts("two", "500", "p1", "p2 hard"))
    further = ("--policy", "top1", "--policy", "wlr:theta=0.3,strict=true")
    output, error = invoke(*sets, *further, "--theta", "0.2", "--json", "--out", "out")
    assert isinstance(error, StackError)
    assert str(error).startswith("4 of 28 requests failed")
    summary = json.loads(output)
    assert summary == json.loads(Path("out/summary.json").read_text())
    assert summary["seeds"] == {"before": 7}  # the profile that was in force
    cells = {(cell["prompts"], cell["label"]): cell for cell in summary["cells"]}
    labels = ["topk", "wlr θ=0.2", "top1", "wlr θ=0.3 strict"]
    assert list(cells) == [(name, label) for name in ("one", "two") for label in labels]
    assert cells["one", "topk"]["accuracy"] == 1.0
    wlr = cells["one", "wlr θ=0.2"]
    assert wlr["accuracy"] == 0.75
    assert wlr["compared"]["n"] == 4
    assert wlr["compared"]["accuracy_change"] == -0.25
    assert wlr["compared"]["mcnemar_p"] == 1.0
    assert wlr["measured"]["experts_per_token"] == 1.5
    assert wlr["measured"]["devices_p50_s"] == pytest.approx(0.0004)
    assert wlr["measured"]["devices_ratio"]["p50"] == pytest.approx(2.0)
    failed = cells["two", "topk"]
    assert (failed["n"], failed["errors"]) == (3, 1)
    page = Path("out/table.md").read_text()
    assert "Warning: before, two, topk: 1 of 3 requests failed" in page
    assert "| wlr θ=0.2 | 75.0 ± 21.7<br>−25.0, p 1 | 50.0 ± 35.4<br>−50.0, p 1 |" in page


def test_a_stopped_sweep_goes_on() -> None:
    spec = prompts("mine", *(f"p{n}" for n in range(10)), "stop 32", "p11")
    arguments = (spec, "--theta", "0.1,0.2", "--profile", "still.yaml", "--out", "out", "--json")
    _, error = invoke(*arguments)
    assert isinstance(error, StackError)
    assert "HTTP 503" in str(error)
    assert stack.policy["name"] == "top1"
    before = [sent[1:3] for sent in stack.sent]
    _, error = invoke(*arguments)
    assert str(error) == "--out out: holds a sweep already; allowed: a new folder, or --resume"

    stack.__init__()  # type: ignore[misc]
    stack.sent = [("", "", "", None)] * 100
    output, error = invoke(*arguments, "--resume")
    assert error is None
    after = [sent[1:3] for sent in stack.sent[100:]]
    assert (len(before), len(after)) == (32, 4)
    assert [cell["n"] for cell in json.loads(output)["cells"]] == [12, 12, 12]
    for policy in ("topk", "wlr-theta-0.1", "wlr-theta-0.2"):
        assert [one["id"] for one in lines(f"out/still/mine/{policy}/requests.jsonl")] == [
            *range(12)
        ]

    stack.well = False  # what is complete is summed up again without a stack
    assert invoke(*arguments, "--resume")[1] is None


def test_a_sweep_goes_on_with_the_same_stack_only() -> None:
    arguments = (prompts("mine", "p0"), "--theta", "0.2", "--profile", "still.yaml", "--out", "out")
    assert invoke(*arguments)[1] is None
    shutil.rmtree("out/still/mine/wlr-theta-0.2")
    stack.wire_dtype = "fp32"
    before = len(stack.sent)
    _, error = invoke(*arguments, "--resume")
    assert isinstance(error, InputError)
    assert "topk/run.json: base_station.wire_dtype was fp16, it is fp32 now" in str(error)
    assert len(stack.sent) == before


def test_a_broken_summary_is_told() -> None:
    arguments = (prompts("mine", "p0"), "--theta", "0.2", "--profile", "still.yaml", "--out", "out")
    assert invoke(*arguments)[1] is None
    summary = Path("out/still/mine/topk/summary.json")
    summary.write_text(summary.read_text()[:99])
    _, error = invoke(*arguments, "--resume")
    assert isinstance(error, InputError)
    assert str(error).startswith("out/still/mine/topk/summary.json: not a summary of this version")


@pytest.mark.parametrize("ended", [KeyboardInterrupt, StackError])
@pytest.mark.parametrize("policy", ["top1", "channel"])  # which is refused
def test_the_stack_gets_back_what_it_had(
    url: str, ended: type[BaseException], policy: str, capsys: pytest.CaptureFixture[str]
) -> None:
    stack.policy = {"name": policy, "params": {}}
    done: list[Request] = []

    def end(request: Request) -> None:
        done.append(request)
        if len(done) == 3:
            raise ended("enough")

    sets = (prompt_sets.load(prompts("mine", "p0", "p1")),)
    plan = Plan(Path("out"), (profiles.find("still.yaml"),), sets, policies([0.2], []))
    with closing(Client(url, url)) as client, pytest.raises(ended, match="enough"):
        Runner(plan, client, on_request=end).run()
    assert [sent[1] for sent in stack.sent] == ["topk", "topk", "wlr"]
    assert (stack.told[-1].done, stack.told[-1].running) == (1, False)
    assert stack.profile["name"] == "before"
    assert stack.policy["name"] == ("top1" if policy == "top1" else "wlr")
    told = "wdmoe: channel and before could not be put back: policy channel: not today\n"
    assert capsys.readouterr().err == ("" if policy == "top1" else told)


def test_another_sweep_is_not_mixed_in() -> None:
    spec = prompts("mine", "p0", "p1")
    arguments = ("--profile", "still.yaml", "--out", "out", "--theta")
    assert invoke(spec, *arguments, "0.2")[1] is None
    _, error = invoke(spec, *arguments, "0.3", "--resume")
    assert isinstance(error, InputError)
    assert str(error) == (
        "--resume: out/sweep.json: policies was topk, wlr θ=0.2, it is topk, wlr θ=0.3 now; "
        "allowed: the same"
    )
    _, error = invoke(spec, *arguments, "0.2", "--limit", "1", "--resume")
    assert "the number of prompts of set mine was 2, it is 1 now" in str(error)
    Path("still.yaml").write_text(STILL.replace("seed: 7", "seed: 8"))
    _, error = invoke(spec, *arguments, "0.2", "--resume")
    assert "the sha256 of profile still was" in str(error)


def test_an_answer_under_another_policy_ends_it() -> None:
    stack.deaf_to_policies = True
    spec = prompts("mine", "p0")
    _, error = invoke(spec, "--theta", "0.2", "--out", "out")
    assert isinstance(error, StackError)
    assert "mine-0 ran under topk and before (epoch" in str(error)
    assert lines("out/before/mine/wlr-theta-0.2/requests.jsonl") == []
    assert stack.policy["name"] == "top1"


@pytest.mark.parametrize("profile", ["still", "moving"])
def test_a_switch_that_was_told_late_is_waited_for(profile: str) -> None:
    stack.late = 1
    spec = prompts("mine", "p0", "p1")
    arguments = ("--theta", "0.2", "--profile", f"{profile}.yaml", "--out", "out")
    _, error = invoke(spec, *arguments)
    assert error is None
    first, again = stack.sent[:2]
    assert first == again
    assert len(stack.sent) == 5
    for policy in ("topk", "wlr-theta-0.2"):
        requests = [
            Request.model_validate(line)
            for line in lines(f"out/{profile}/mine/{policy}/requests.jsonl")
        ]
        epochs = {one["epoch"] for one in lines(f"out/{profile}/mine/{policy}/intervals.jsonl")}
        assert {one.timings.epoch for one in requests if one.timings} == epochs
        assert [one.id for one in requests] == [0, 1]


def test_a_policy_that_the_orchestrator_refuses() -> None:
    _, error = invoke(prompts("mine", "p0"), "--theta", "", "--policy", "channel", "--out", "out")
    assert isinstance(error, InputError)
    assert str(error) == "policy channel: not today"


def test_fading_that_hardly_changes_is_refused_first() -> None:
    slow = "{kind: rayleigh, coherence_s: 0.05, speed_m_per_s: 0.01}"
    Path("slow.yaml").write_text(STILL.replace("{kind: none}", slow))
    arguments = ("--profile", "slow.yaml", "--out", "out")
    _, error = invoke(prompts("mine", "p0", "p1"), *arguments)
    assert isinstance(error, InputError)
    assert str(error).startswith("profile slow: its fading remembers too many of its intervals of")
    assert stack.sent == []
    assert not Path("out").exists()
    assert invoke(prompts("one", "p0"), *arguments)[1] is None  # which begins at the beginning


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--theta", "0.2;0.3"], "--theta is '0.2;0.3'; allowed: numbers from 0 to 0.5"),
        (["--theta", "0.7"], "policy wlr: theta is 0.7; allowed: 0 to 0.5"),
        (["--policy", "best"], "policy 'best' is unknown; allowed: channel, "),
        (["--policy", "wlr:theta"], "--policy wlr:theta: 'theta' has no value"),
        (["--policy", "wlr:theta=0.1"], "policy wlr θ=0.1 is given twice; allowed: once each"),
        (["--profile", "still.yaml", "--profile", "still.yaml"], "profile still is given twice"),
        (["--resume"], "--resume: --out is missing"),
    ],
)
def test_what_is_asked_is_checked_first(arguments: list[str], told: str) -> None:
    _, error = invoke(prompts("mine", "p0"), *arguments)
    assert isinstance(error, InputError)
    assert str(error).startswith(told)
    assert stack.sent == []
    assert not Path("runs").exists()
