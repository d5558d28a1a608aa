"""A stopped sweep resumes in its folder; no other sweep can use it."""

from __future__ import annotations

import json
import shutil
from contextlib import closing
from pathlib import Path

from orchestrator.client.client import Client
from orchestrator.errors import InputError, StackError
from orchestrator.prompts import prompt_sets
from orchestrator.radio import profiles
from orchestrator.results.schema import Request
from orchestrator.sweep.plan import Plan, policies
from orchestrator.sweep.run import Runner
from tests.harness.sweep_stack import STILL, invoke, lines, prompts, stack
from tests.harness.sweep_stack import ready as ready
from tests.harness.sweep_stack import url as url


def test_a_stopped_sweep_resumes() -> None:
    spec = prompts("mine", *(f"p{n}" for n in range(10)), "stop 32", "p11")
    arguments = (spec, "--theta", "0.1,0.2", "--profile", "still.yaml", "--out", "out", "--json")
    _, error = invoke(*arguments)
    assert isinstance(error, StackError)
    assert "engine stopped" in str(error)
    assert stack.policy["name"] == "top1"
    before = [sent[1:3] for sent in stack.sent]
    _, error = invoke(*arguments)
    assert str(error) == "out: holds a sweep already; allowed: a new folder, or to resume it"

    stack.__init__()  # type: ignore[misc]
    stack.sent = [("", "", "", None)] * 100
    output, error = invoke(*arguments, "--resume")
    assert error is None
    after = [sent[1:3] for sent in stack.sent[100:]]
    assert (len(before), len(after)) == (32, 4)
    assert [cell["n"] for cell in json.loads(output)["cells"]] == [12, 12, 12]
    for policy in ("topk", "wlr-theta-0.1", "wlr-theta-0.2"):
        assert [line["id"] for line in lines(f"out/still/mine/{policy}/requests.jsonl")] == [
            *range(12)
        ]

    stack.well = False  # a complete sweep is summarised again without a stack
    assert invoke(*arguments, "--resume")[1] is None


def test_a_sweep_resumes_on_the_same_stack_only() -> None:
    arguments = (prompts("mine", "p0"), "--theta", "0.2", "--profile", "still.yaml", "--out", "out")
    assert invoke(*arguments)[1] is None
    shutil.rmtree("out/still/mine/wlr-theta-0.2")
    stack.wire_dtype = "fp32"
    before = len(stack.sent)
    _, error = invoke(*arguments, "--resume")
    assert isinstance(error, InputError)
    assert "topk/run.json: base_station.wire_dtype was fp16, it is fp32 now" in str(error)
    assert len(stack.sent) == before


def test_a_broken_summary_is_refused() -> None:
    arguments = (prompts("mine", "p0"), "--theta", "0.2", "--profile", "still.yaml", "--out", "out")
    assert invoke(*arguments)[1] is None
    summary = Path("out/still/mine/topk/summary.json")
    summary.write_text(summary.read_text()[:99])
    _, error = invoke(*arguments, "--resume")
    assert isinstance(error, InputError)
    assert str(error).startswith("out/still/mine/topk/summary.json: not a summary of this version")


def test_a_sweep_with_another_plan_cannot_resume() -> None:
    spec = prompts("mine", "p0", "p1")
    arguments = ("--profile", "still.yaml", "--out", "out", "--theta")
    assert invoke(spec, *arguments, "0.2")[1] is None
    _, error = invoke(spec, *arguments, "0.3", "--resume")
    assert isinstance(error, InputError)
    assert str(error) == (
        "out/sweep.json: policies was topk, wlr θ=0.2, it is topk, wlr θ=0.3 now; allowed: the same"
    )
    _, error = invoke(spec, *arguments, "0.2", "--limit", "1", "--resume")
    assert "the number of prompts of set mine was 2, it is 1 now" in str(error)
    Path("still.yaml").write_text(STILL.replace("seed: 7", "seed: 8"))
    _, error = invoke(spec, *arguments, "0.2", "--resume")
    assert "the sha256 of profile still was" in str(error)


def test_a_second_sweep_in_a_folder_is_refused_before_it_switches_the_stack(url: str) -> None:
    spec = prompts("mine", "p0", "p1")
    arguments = (spec, "--theta", "0.2", "--profile", "still.yaml", "--out", "out")
    refused: list[BaseException] = []

    def start_second_sweep(request: Request) -> None:
        switched = stack.epoch
        refused.append(invoke(*arguments, "--resume")[1])
        assert stack.epoch == switched

    sets = (prompt_sets.load(spec),)
    plan = Plan(Path("out"), (profiles.find("still.yaml"),), sets, policies([0.2], []))
    plan.claim(resume=False)
    with closing(Client(url, url)) as client, plan.alone():
        Runner(plan, client, on_request=start_second_sweep).run()
    message = "out: a sweep is writing to it; allowed: when that has ended"
    assert [(type(error), str(error)) for error in refused] == [(InputError, message)] * 4
    assert len(stack.sent) == 4
    assert invoke(*arguments, "--resume")[1] is None
