"""Selection for a request: its policy, the inputs of it, and what is recorded."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from prometheus_client import CollectorRegistry

from orchestrator.contracts.channel_state import Direction, PolicyState
from orchestrator.metrics import bs_metrics
from orchestrator.moe.checkpoint import Checkpoint
from orchestrator.selection import LatencySource
from orchestrator.selection.policies.top1 import Top1
from orchestrator.selection.policies.topk import TopK
from orchestrator.selection.policies.wlr import WeightToLatencyRatio
from services.bs.batch.request_context import RequestContext, generator
from services.bs.batch.routing_trace import RoutingTrace
from services.bs.experts.policy_in_force import PolicyInForce
from tests.harness.cell import CPU, EXPERTS, ROOM, Cell, emulating, forward


def all_there(cell: Cell) -> None:
    for q in range(EXPERTS):
        cell.start(q)
    cell.admit(*range(EXPERTS))


def test_deselected_experts_are_counted_apart_from_lost_ones(cell: Cell) -> None:
    slow = emulating(flops=1e12, rate_bps=1e6)
    fast = replace(slow.devices[0], down=Direction(rate_bps=1e9), up=Direction(rate_bps=1e9))
    cell.channel.state = replace(slow, devices=(fast, fast, fast, slow.devices[3]))
    all_there(cell)
    tokens, layers = 20, 3
    everything, served = RequestContext(TopK()), RequestContext(WeightToLatencyRatio(theta=0.2))
    split = cell.station.trunk()
    forward(split, list(range(tokens)), split.cache(ROOM), everything)
    before = cell.counted("wdmoe_token_experts_total", layer="0", experts="2")
    assert before == tokens
    would = cell.counted("wdmoe_kappa_bucket", layer="0", le="0.2")
    forward(split, list(range(tokens)), split.cache(ROOM), served)

    left_out = served.meter.deselected
    assert left_out[3] > 0
    assert served.meter.dropped == {}
    assert left_out.total() + served.meter.used.total() == 2 * tokens * layers
    assert served.meter.eq8_s < everything.meter.eq8_s
    by_policy = {"device": "3", "reason": "policy"}
    counted = [
        cell.counted("wdmoe_expert_dropped_total", **by_policy, layer=str(layer))
        for layer in range(layers)
    ]
    assert sum(counted) == left_out[3]
    one, two = (
        cell.counted("wdmoe_token_experts_total", layer="0", experts=number) for number in "12"
    )
    assert one + two - before == tokens
    assert would == one > 0  # observed before, under a policy that drops nothing
    assert cell.counted("wdmoe_kappa_count", layer="0") == 2 * tokens
    assert cell.counted("wdmoe_kappa_bucket", layer="0", le="0.2") == 2 * one
    assert cell.counted("wdmoe_expert_wlr_count", decision="dropped") == left_out.total()
    kept = cell.counted("wdmoe_expert_wlr_count", decision="kept")
    assert kept == served.meter.used.total() + everything.meter.used.total()


def test_an_expert_that_replaces_a_lost_one_is_not_deselected(cell: Cell) -> None:
    all_there(cell)
    cell.devices.lose(1, "silent")
    tokens, layers = 20, 3
    served, split = RequestContext(Top1()), cell.station.trunk()
    forward(split, list(range(tokens)), split.cache(ROOM), served)
    meter = served.meter
    assert meter.dropped.keys() == {1}
    assert meter.used.total() == tokens * layers
    # Of two candidates the second is left out, unless the first is the one that was lost.
    assert meter.deselected.total() == tokens * layers - meter.dropped[1]


def test_a_trace_has_a_row_for_every_token_of_every_layer(cell: Cell) -> None:
    all_there(cell)
    served = RequestContext(TopK())
    served.trace = RoutingTrace()
    split = cell.station.trunk()
    cache = split.cache(ROOM)
    forward(split, [1, 2, 3], cache, served)
    forward(split, [4], cache, served)
    with np.load(io.BytesIO(served.trace.npz())) as file:
        seen = sorted(zip(file["layer"].tolist(), file["token"].tolist(), strict=True))
        assert seen == [(layer, token) for layer in range(3) for token in range(4)]
        used = np.bincount(file["expert"][file["kept"]], minlength=EXPERTS)
    assert {q: n for q, n in enumerate(used.tolist()) if n} == served.meter.used


@pytest.mark.parametrize("source", ["analytic", "compute", "measured", "larger"])
def test_an_absent_device_has_an_infinite_latency(cell: Cell, source: LatencySource) -> None:
    cell.channel.state = emulating(flops=1e12, rate_bps=1e8)
    cell.start(0)
    cell.admit(0)
    policy = WeightToLatencyRatio(theta=0.0, latency=source)
    logits = torch.tensor([[1.0, 2.0, -1.0, -1.0]])
    choice = cell.selector.select(logits, 2, policy, generator([1], CPU), cell.selector.channel())
    assert np.isinf(choice.latency_s).tolist() == [False, True, True, True]
    assert choice.selected.index.tolist() == [[4, 0]]
    assert choice.used.weight.tolist() == [[0, 1]]


def test_latencies_are_current_after_a_policy_that_needs_none(cell: Cell) -> None:
    cell.channel.state = emulating(flops=1e12, rate_bps=1e8)
    all_there(cell)
    wlr, draw = WeightToLatencyRatio(theta=0.0), generator([1], CPU)
    logits = torch.zeros(1, EXPERTS)
    assert np.isfinite(
        cell.selector.select(logits, 2, wlr, draw, cell.selector.channel()).latency_s
    ).all()
    cell.devices.lose(1, "silent")
    cell.selector.select(logits, 2, TopK(), draw, cell.selector.channel())
    later = cell.selector.select(logits, 2, wlr, draw, cell.selector.channel()).latency_s
    assert np.isfinite(later).tolist() == [True, False, True, True]


def test_a_repeated_prompt_draws_the_same() -> None:
    first, again, other = (
        torch.rand(8, generator=generator(prompt, CPU)) for prompt in ([1, 23], [1, 23], [12, 3])
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_policy_that_cannot_be_built_leaves_the_last_one(
    checkpoint: Checkpoint, capsys: pytest.CaptureFixture[str]
) -> None:
    registry = CollectorRegistry()
    policies = PolicyInForce(checkpoint.info, CPU, bs_metrics(registry))
    wlr = policies.of(PolicyState("wlr", {"theta": 0.2}))
    assert wlr.model_dump()["theta"] == 0.2
    for _ in range(3):  # every request looks it up, one line is enough
        assert policies.of(PolicyState("unheard-of")) is wlr
    assert policies.of(PolicyState("wlr", {"theta": 0.7})) is wlr
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("policy refused, wlr θ=0.2 stays: policy 'unheard-of' is unknown")
    counted = registry.get_sample_value("wdmoe_refused_messages_total", {"reason": "policy"})
    assert counted == 2
    assert policies.of(PolicyState()).name == "topk"


MINE = """\
from dataclasses import replace

from orchestrator.selection import Gate, Policy, Selection
from orchestrator.selection.policies.topk import TopK


class Mine(Policy):
    \"\"\"A user's policy.\"\"\"

    def select(self, gate: Gate) -> Selection:
        s = TopK().select(gate)
"""


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("return gate.logits.nothing", "AttributeError: 'Tensor' object has no attribute 'noth"),
        ("return gate.latency_s[0]", "TypeError: 'NoneType' object is not subscriptable"),
        ("return None", "AttributeError: 'NoneType' object has no attribute 'index'"),
        ("return TopK().select(replace(gate, k=1))", "ValueError: index has shape (3, 1)"),
        ("return replace(s, index=s.index + 4)", "ValueError: index is [["),
        ("return replace(s, candidates=s.index * 0 + 4)", "ValueError: candidates is [["),
        ("return replace(s, weight=s.weight / 0)", "ValueError: weight has values that are not f"),
    ],
)
def test_a_policy_that_cannot_select_leaves_the_last_one(
    checkpoint: Checkpoint,
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    statement: str,
    message: str,
) -> None:
    (folder / "mine.py").write_text(MINE + f"        {statement}\n")
    policies = PolicyInForce(checkpoint.info, CPU, bs_metrics(CollectorRegistry()))
    assert policies.of(PolicyState("mine")).name == "topk"
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("policy refused, topk stays: policy mine: ")
    assert message in line


@pytest.mark.parametrize("name", ["topk", "wlr", "top1", "random", "channel"])
def test_bundled_policies_pass_their_trial(checkpoint: Checkpoint, name: str) -> None:
    policies = PolicyInForce(checkpoint.info, CPU, bs_metrics(CollectorRegistry()))
    params = {"theta": 0.2} if name == "wlr" else {}
    assert policies.of(PolicyState(name, params)).name == name
