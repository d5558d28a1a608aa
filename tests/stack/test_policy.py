"""Selection policies on the running stack: switched, seen, compared."""

import base64
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.stack.conftest import EXPERTS, Stack, until, wdmoe
from tests.stack.test_shaping import TOKENS

PROMPT = "What is 120 + 45?"


@pytest.fixture(autouse=True)
def _as_published(stack: Stack) -> Iterator[None]:
    yield
    stack.wdmoe("policy", "use", "topk")


def use(stack: Stack, *arguments: str) -> dict[str, Any]:
    """Put a policy into force; the first answer that it gave."""
    asked = stack.wdmoe("policy", "use", *arguments)["policy"]

    def in_force() -> bool:
        return bool(stack.complete(PROMPT)["timings"]["policy"] == asked)

    until(in_force, f"answers are made with {asked}")
    return stack.complete(PROMPT, max_tokens=4, logits=True)


def test_a_policy_is_switched_between_requests_and_everything_says_so(
    stack: Stack, tmp_path: Path
) -> None:
    stack.use("near-far")
    use(stack, "topk")
    timings = use(stack, "wlr", "--theta", "0.2")["timings"]
    in_force = {"name": "wlr", "params": {"theta": 0.2, "strict": False, "max_drops": 1}}
    in_force["params"] |= {"latency": "analytic"}  # type: ignore[operator]
    assert timings["policy"] == in_force
    assert sum(timings["experts"]["deselected"].values()) > 0
    assert timings["experts"]["dropped"] == {}
    assert 0 < timings["batched_s"] < timings["eq8_s"]
    assert stack.status()["policy"] == in_force
    assert "wlr" in wdmoe("status").stdout
    out = tmp_path / "run"
    summary = stack.wdmoe("replay", "facts", "--limit", "2", "--out", str(out))
    assert summary["policy"] == in_force
    assert not [text for text in summary["warnings"] if "policy" in text or "profile" in text]
    assert json.loads((out / "run.json").read_text())["channel"]["policy"] == in_force
    until(lambda: len(stack.query('wdmoe_policy_info{name="wlr"}')) == 1, "Prometheus knows")
    for metric in ('expert_dropped_total{reason="policy"}', "kappa_count", "token_experts_total"):
        until(lambda name=metric: stack.query(f"wdmoe_{name} > 0") != [], metric)


def test_a_profile_switch_keeps_the_policy_and_a_policy_switch_the_profile(stack: Stack) -> None:
    stack.use("rayleigh-100m")
    use(stack, "wlr", "--theta", "0.3", "--max-drops", "2")
    assert stack.status()["profile"] == "rayleigh-100m"
    policy = stack.status()["policy"]
    stack.use("mobility")
    assert stack.status()["policy"] == policy
    intervals = stack.status()["interval"]
    use(stack, "top1")
    assert stack.status()["profile"] == "mobility"
    assert stack.status()["interval"] > intervals


def test_theta_zero_is_the_model_as_published_bit_for_bit(stack: Stack) -> None:
    stack.use("near-far")
    published = use(stack, "topk")
    zero = use(stack, "wlr", "--theta", "0")
    assert zero["logits"] == published["logits"]
    assert zero["choices"] == published["choices"]


@pytest.mark.parametrize("name", ["top1", "random", "channel"])
def test_every_rival_answers(stack: Stack, name: str) -> None:
    stack.use("near-far")
    published = use(stack, "topk")
    rival = use(stack, name)
    assert rival["logits"] != published["logits"]
    assert rival["timings"]["experts"]["dropped"] == {}
    assert use(stack, name)["logits"] == rival["logits"]  # and the same again


def traced(stack: Stack) -> dict[str, NDArray[Any]]:
    """What was decided for a prompt that gives every device work in some layers."""
    reply = stack.complete(TOKENS, max_tokens=1, routing=True)
    return dict(np.load(io.BytesIO(base64.b64decode(reply["routing"]))))


def test_wlr_selects_by_what_was_measured(stack: Stack) -> None:
    stack.use("blockage")
    # θ = 0 drops nobody here: every device goes on being measured.
    use(stack, "wlr", "--theta", "0")
    trace = traced(stack)
    analytic_s = np.full(EXPERTS, np.nan)
    analytic_s[trace["expert"]] = trace["latency_s"]
    assert np.unique(trace["expert"]).tolist() == list(range(EXPERTS))

    def ratio() -> NDArray[Any]:
        """What a policy is told of each candidate, against Eq. 6."""
        trace = traced(stack)
        told: NDArray[Any] = trace["latency_s"] / analytic_s[trace["expert"]]
        return told

    use(stack, "wlr", "--theta", "0", "--latency", "measured")
    # From the eighth message of a device on, of which each of these has some.
    until(lambda: bool((np.abs(ratio() - 1) > 1e-3).all()), "every device is known by measurement")
    use(stack, "wlr", "--theta", "0", "--latency", "larger")
    larger = ratio()
    assert (larger >= 1 - 1e-6).all()
    assert (larger > 1 + 1e-3).any()
    timings = use(stack, "wlr", "--theta", "0.2", "--latency", "measured")["timings"]
    assert sum(timings["experts"]["deselected"].values()) > 0


def test_a_device_in_outage_is_not_asked(stack: Stack) -> None:
    stack.use("outage")
    gone = {str(link["device"]) for link in stack.status()["links"] if not link["reachable"]}
    assert gone
    for policy in (["topk"], ["wlr", "--theta", "0.2"]):
        experts = use(stack, *policy)["timings"]["experts"]
        assert experts["used"]
        assert not gone & experts["used"].keys()
        assert experts["dropped"] == {}
        assert experts["outage"].keys() <= gone


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["fastest"], "policy 'fastest' is unknown; allowed: channel, random, top1, topk, wlr"),
        (["wlr", "--theta", "0.7"], "policy wlr: theta is 0.7; allowed: 0 to 0.5"),
        (["wlr"], "policy wlr: theta is missing; allowed: 0 to 0.5"),
        (["topk", "--theta", "0.1"], "policy topk has no parameter theta; allowed: none"),
    ],
)
def test_a_policy_that_cannot_be_leaves_the_old_one(
    stack: Stack, arguments: list[str], told: str
) -> None:
    use(stack, "wlr", "--theta", "0.1")
    before = stack.status()
    refused = wdmoe("policy", "use", *arguments)
    assert (refused.returncode, refused.stderr) == (2, f"wdmoe: {told}\n")
    after = stack.status()
    assert (after["policy"], after["epoch"]) == (before["policy"], before["epoch"])


def test_a_routing_trace_tells_each_choice(stack: Stack) -> None:
    stack.use("near-far")
    use(stack, "wlr", "--theta", "0.2")
    reply = stack.complete(PROMPT, max_tokens=3, routing=True)
    trace = np.load(io.BytesIO(base64.b64decode(reply["routing"])))
    positions = reply["usage"]["prompt_tokens"] + reply["usage"]["completion_tokens"] - 1
    layers = stack.health()["model"]["layers"]
    pairs = set(zip(trace["layer"].tolist(), trace["token"].tolist(), strict=True))
    assert pairs == {(layer, token) for layer in range(layers) for token in range(positions)}
    assert trace["expert"].max() < EXPERTS
    np.testing.assert_allclose(trace["weight"].sum(axis=1), 1, rtol=1e-6)
    np.testing.assert_allclose(trace["wlr"], trace["weight"] / trace["latency_s"], rtol=1e-5)
    kappa = trace["wlr"].min(axis=1) / (trace["wlr"].min(axis=1) + trace["wlr"].max(axis=1))
    assert ((~trace["kept"]).any(axis=1) == (kappa <= 0.2)).all()
    used = np.bincount(trace["expert"][trace["kept"]], minlength=EXPERTS)
    told = reply["timings"]["experts"]["used"]
    assert used.tolist() == [told.get(str(q), 0) for q in range(EXPERTS)]


def test_a_sweep_compares_policies_and_is_resumed(stack: Stack, tmp_path: Path) -> None:
    stack.use("ideal")
    before = use(stack, "top1")["timings"]["policy"]
    out = tmp_path / "sweep"
    arguments = ["sweep", "facts", "--theta", "0.2", "--profile", "near-far", "--out", str(out)]
    stack.wdmoe(*arguments, "--limit", "3")
    lines = sorted(out.rglob("requests.jsonl"))
    assert [len(path.read_text().splitlines()) for path in lines] == [3, 3]
    asked = [[json.loads(line)["prompt_id"] for line in path.open()] for path in lines]
    assert asked[0] == asked[1]
    # as if it had been stopped in the middle
    kept = lines[1].read_text().splitlines(keepends=True)[:1]
    lines[1].write_text("".join(kept))
    (lines[1].parent / "summary.json").unlink()
    (out / "summary.json").unlink()
    stack.wdmoe(*arguments, "--limit", "3", "--resume")
    assert lines[1].read_text().startswith(kept[0])
    assert len(lines[1].read_text().splitlines()) == 3
    assert {path.name for path in out.iterdir()} >= {"summary.json", "table.md", "near-far.png"}
    assert (stack.status()["profile"], stack.status()["policy"]) == ("ideal", before)
