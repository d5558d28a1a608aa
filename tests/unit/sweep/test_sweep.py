"""A sweep from its command to its files: turns, results, and the restored stack."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path

import pytest

from orchestrator.client.client import Client
from orchestrator.errors import StackError
from orchestrator.prompts import prompt_sets
from orchestrator.radio import profiles
from orchestrator.results.schema import Request, Run
from orchestrator.sweep.plan import Plan, policies
from orchestrator.sweep.run import Runner
from tests.harness.sweep_stack import invoke, lines, prompts, stack
from tests.harness.sweep_stack import ready as ready
from tests.harness.sweep_stack import url as url

pytestmark = pytest.mark.slow

WLR = {"theta": 0.2, "strict": False, "max_drops": 1, "latency": "analytic"}


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
    assert {(one.prompts, one.planned) for one in stack.reported} == {("mine", 12)}
    last = stack.reported[-1]  # of the cell whose turn was last
    assert (last.done, last.scored, last.score_sum, last.running) == (12, 12, 12.0, False)
    assert all(one.running for one in stack.reported[:-1])

    cells = Path("out/still/mine")
    assert sorted(cell.name for cell in cells.iterdir()) == ["topk", "wlr-theta-0", "wlr-theta-0.2"]
    run = Run.model_validate_json((cells / "wlr-theta-0.2/run.json").read_text())
    assert run.channel.policy.params == WLR
    assert [line["id"] for line in lines("out/still/mine/topk/requests.jsonl")] == [*range(12)]
    epochs = [line["epoch"] for line in lines("out/still/mine/topk/intervals.jsonl")]
    assert len(epochs) == 2  # of the turns of topk only
    summary = json.loads((cells / "topk/summary.json").read_text())
    assert (summary["n"], summary["warnings"]) == (12, [])
    assert max(map(len, output.splitlines())) <= 100
    assert "100.0 [75.8, 100.0]" in output
    assert {"sweep.json", "summary.json", "table.md", "still.png", "still.svg"} <= {
        file.name for file in Path("out").iterdir()
    }


@pytest.mark.parametrize(
    ("profile", "stride"),
    [("moving", 12140), ("drawn", 1)],  # 607 s of 50 ms; another draw
)
def test_each_policy_meets_the_same_fading(profile: str, stride: int) -> None:
    spec = prompts("mine", "p0", "p1", "p2")
    _, error = invoke(spec, "--theta", "0.2", "--profile", f"{profile}.yaml", "--out", "out")
    assert error is None
    assert [sent[1:] for sent in stack.sent] == [
        ("topk", "p0", 0),
        ("wlr", "p0", 0),
        ("wlr", "p1", stride),
        ("topk", "p1", stride),
        ("topk", "p2", 2 * stride),
        ("wlr", "p2", 2 * stride),
    ]
    begun = [line["first_interval"] for line in lines(f"out/{profile}/mine/topk/requests.jsonl")]
    assert begun == [0, stride, 2 * stride]


def test_one_realisation_for_all_prompts_is_marked_in_the_tables() -> None:
    spec = prompts("mine", "p0", "p1")
    arguments = (spec, "--theta", "0.2", "--profile", "drawn.yaml", "--out", "out")
    output, error = invoke(*arguments, "--fading", "one")
    assert error is None
    assert [sent[1:] for sent in stack.sent] == [
        *(("topk", "p0", 0), ("topk", "p1", 0), ("wlr", "p0", 0), ("wlr", "p1", 0))
    ]
    page = Path("out/table.md").read_text()
    assert output.count("drawn, one realisation: ") == 2
    assert page.count("**drawn, one realisation: ") == 3
    assert "- fading: drawn one realisation\n" in page
    _, error = invoke(*arguments, "--resume")
    assert str(error) == ("out/sweep.json: fading was one, it is each now; allowed: the same")


def test_the_summary_compares_policies_with_the_reference() -> None:
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
    assert (
        "| wlr θ=0.2 | 75.0 [30.1, 95.4]<br>−25.0, p 1 | 50.0 [9.5, 90.5]<br>−50.0, p 1 |" in page
    )


@pytest.mark.parametrize("ended", [KeyboardInterrupt, StackError])
@pytest.mark.parametrize("policy", ["top1", "channel"])  # which is refused
def test_policy_and_profile_of_the_stack_are_restored(
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
    assert (stack.reported[-1].done, stack.reported[-1].running) == (1, False)
    assert stack.profile["name"] == "before"
    assert stack.policy["name"] == ("top1" if policy == "top1" else "wlr")
    warning = "wdmoe: policy channel could not be restored: policy channel: not today\n"
    assert capsys.readouterr().err == ("" if policy == "top1" else warning)


def test_an_answer_under_another_policy_ends_the_sweep() -> None:
    stack.deaf_to_policies = True
    spec = prompts("mine", "p0")
    _, error = invoke(spec, "--theta", "0.2", "--out", "out")
    assert isinstance(error, StackError)
    assert "mine-0 ran under topk and before (epoch" in str(error)
    assert lines("out/before/mine/wlr-theta-0.2/requests.jsonl") == []
    assert stack.policy["name"] == "top1"


def test_a_switch_during_a_request_is_noticed_after_it() -> None:
    stack.meddled = 99
    _, error = invoke(prompts("own", "1"), "--profile", "still.yaml", "--out", "sweep")
    assert isinstance(error, StackError)
    assert str(error).endswith("were requested: does another client use the stack?")
    assert lines("sweep/still/own/topk/requests.jsonl") == []


@pytest.mark.parametrize("profile", ["still", "moving"])
def test_a_switch_that_is_announced_late_is_waited_for(profile: str) -> None:
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
