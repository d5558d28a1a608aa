"""Selection policies on the running stack: switched, reported, compared."""

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
    """Activate a policy; return an answer that it made."""
    expected = stack.wdmoe("policy", "use", *arguments)["policy"]

    def in_force() -> bool:
        return bool(stack.complete(PROMPT)["timings"]["policy"] == expected)

    until(in_force, f"answers are made with {expected}")
    return stack.complete(PROMPT, max_tokens=4, logits=True)


def test_a_policy_switch_appears_in_timings_status_runs_and_metrics(
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
    until(lambda: len(stack.query('wdmoe_policy_info{name="wlr"}')) == 1, "policy is scraped")
    for metric in ('expert_dropped_total{reason="policy"}', "kappa_count", "token_experts_total"):
        until(lambda name=metric: stack.query(f"wdmoe_{name} > 0") != [], metric)


def test_a_profile_switch_keeps_the_policy_and_vice_versa(stack: Stack) -> None:
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


def test_theta_zero_equals_the_published_model_bit_for_bit(stack: Stack) -> None:
    stack.use("near-far")
    published = use(stack, "topk")
    zero = use(stack, "wlr", "--theta", "0")
    assert zero["logits"] == published["logits"]
    assert zero["choices"] == published["choices"]


@pytest.mark.parametrize("name", ["top1", "random", "channel"])
def test_every_other_policy_changes_the_logits_reproducibly(stack: Stack, name: str) -> None:
    stack.use("near-far")
    published = use(stack, "topk")
    answer = use(stack, name)
    assert answer["logits"] != published["logits"]
    assert answer["timings"]["experts"]["dropped"] == {}
    assert use(stack, name)["logits"] == answer["logits"]  # reproducible


def traced(stack: Stack) -> dict[str, NDArray[Any]]:
    """Return the routing trace of a prompt that uses every device in some layer."""
    reply = stack.complete(TOKENS, max_tokens=1, routing=True)
    return dict(np.load(io.BytesIO(base64.b64decode(reply["routing"]))))


def test_wlr_selects_by_measured_latency(stack: Stack) -> None:
    stack.use("blockage")
    # θ = 0 drops no expert here, so every device continues to be measured.
    use(stack, "wlr", "--theta", "0")
    trace = traced(stack)
    analytic_s = np.full(EXPERTS, np.nan)
    analytic_s[trace["expert"]] = trace["latency_s"]
    assert np.unique(trace["expert"]).tolist() == list(range(EXPERTS))

    def ratio() -> NDArray[Any]:
        """Return each candidate's latency as the policy sees it, relative to Eq. 6."""
        trace = traced(stack)
        relative: NDArray[Any] = trace["latency_s"] / analytic_s[trace["expert"]]
        return relative

    use(stack, "wlr", "--theta", "0", "--latency", "measured")
    # Measurements count from a device's eighth message on; each pass adds some to every device.
    until(lambda: bool((np.abs(ratio() - 1) > 1e-3).all()), "every device has a measured latency")
    use(stack, "wlr", "--theta", "0", "--latency", "larger")
    larger = ratio()
    assert (larger >= 1 - 1e-6).all()
    assert (larger > 1 + 1e-3).any()
    timings = use(stack, "wlr", "--theta", "0.2", "--latency", "measured")["timings"]
    assert sum(timings["experts"]["deselected"].values()) > 0


def test_a_device_in_outage_gets_no_work(stack: Stack) -> None:
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
    ("arguments", "message"),
    [
        (["fastest"], "policy 'fastest' is unknown; allowed: channel, random, top1, topk, wlr"),
        (["wlr", "--theta", "0.7"], "policy wlr: theta is 0.7; allowed: 0 to 0.5"),
        (["wlr"], "policy wlr: theta is missing; allowed: 0 to 0.5"),
        (["topk", "--theta", "0.1"], "policy topk has no parameter theta; allowed: none"),
    ],
)
def test_an_invalid_policy_leaves_the_old_one_in_force(
    stack: Stack, arguments: list[str], message: str
) -> None:
    use(stack, "wlr", "--theta", "0.1")
    before = stack.status()
    refused = wdmoe("policy", "use", *arguments)
    assert (refused.returncode, refused.stderr) == (2, f"wdmoe: {message}\n")
    after = stack.status()
    assert (after["policy"], after["epoch"]) == (before["policy"], before["epoch"])


def test_a_routing_trace_records_each_choice(stack: Stack) -> None:
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
    reported = reply["timings"]["experts"]["used"]
    assert used.tolist() == [reported.get(str(q), 0) for q in range(EXPERTS)]


def test_a_sweep_compares_policies_and_resumes(stack: Stack, tmp_path: Path) -> None:
    stack.use("ideal")
    before = use(stack, "top1")["timings"]["policy"]
    out = tmp_path / "sweep"
    arguments = ["sweep", "facts", "--theta", "0.2", "--profile", "near-far", "--out", str(out)]
    stack.wdmoe(*arguments, "--limit", "3")
    lines = sorted(out.rglob("requests.jsonl"))
    assert [len(path.read_text().splitlines()) for path in lines] == [3, 3]
    prompt_ids = [[json.loads(line)["prompt_id"] for line in path.open()] for path in lines]
    assert prompt_ids[0] == prompt_ids[1]
    # the state of a sweep stopped in the second run
    kept = lines[1].read_text().splitlines(keepends=True)[:1]
    lines[1].write_text("".join(kept))
    (lines[1].parent / "summary.json").unlink()
    (out / "summary.json").unlink()
    stack.wdmoe(*arguments, "--limit", "3", "--resume")
    assert lines[1].read_text().startswith(kept[0])
    assert len(lines[1].read_text().splitlines()) == 3
    assert {path.name for path in out.iterdir()} >= {"summary.json", "table.md", "near-far.png"}
    assert (stack.status()["profile"], stack.status()["policy"]) == ("ideal", before)
