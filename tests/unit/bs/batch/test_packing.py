"""Several sequences in one step: each computes what it does alone."""

from __future__ import annotations

import io
import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import MixtralConfig, MixtralForCausalLM

from orchestrator.moe.checkpoint import Checkpoint
from orchestrator.selection.policies.random import Random
from orchestrator.selection.policies.top1 import Top1
from orchestrator.selection.policies.topk import TopK
from services.bs.batch.batch import Segment
from services.bs.batch.request_context import RequestContext, generator
from services.bs.batch.routing_trace import RoutingTrace
from services.bs.engine.trunk import Trunk
from tests.harness.cell import CPU, ROOM, TINY, Cell, around, emulating, forward, part

pytestmark = pytest.mark.slow


@torch.inference_mode()
def whole(checkpoint: Checkpoint, ids: list[int]) -> torch.Tensor:
    model = MixtralForCausalLM.from_pretrained(checkpoint.folder, dtype=torch.float32)
    logits: torch.Tensor = model(torch.tensor([ids])).logits[0]
    return logits


def steps_equal_whole(cell: Cell, steps: list[list[list[int]]]) -> None:
    """`steps` has, for each step, the tokens of each sequence, none if it is not in the step."""
    split, served = cell.station.trunk(), RequestContext(TopK())
    caches = [split.cache(ROOM) for _ in steps[0]]
    rows: list[list[torch.Tensor]] = [[] for _ in caches]
    for step in steps:
        parts = {n: part(ids, caches[n], served) for n, ids in enumerate(step) if ids}
        split.forward(parts.values())
        for n, taken in parts.items():
            rows[n].append(taken.logits)
    for n, logits in enumerate(rows):
        ids = [token for step in steps for token in step[n]]
        torch.testing.assert_close(
            torch.cat(logits), whole(cell.checkpoint, ids), atol=1e-5, rtol=1e-5
        )


STEPS = [
    [[3, 14, 15], [9], []],
    [[9], [26, 5], [35, 8, 9, 7]],
    [[], [3], [2]],
    [[3, 8, 4], [6], [26, 4]],
    *([[token], [token + 1], [token + 2]] for token in range(20)),
]


def test_sequences_that_join_and_leave_compute_what_the_whole_model_does(cell: Cell) -> None:
    cell.start_all()
    steps_equal_whole(cell, STEPS)


def test_a_cache_that_grows_step_by_step_loses_nothing(cell: Cell) -> None:
    cell.start_all()
    steps_equal_whole(cell, [[[1, 2]], *([[token % 40]] for token in range(150))])


def test_a_sliding_window_is_respected(tmp_path_factory: pytest.TempPathFactory) -> None:
    torch.manual_seed(5)
    folder = tmp_path_factory.mktemp("windowed")
    config = MixtralConfig(**{**TINY.to_dict(), "sliding_window": 3})
    MixtralForCausalLM(config).save_pretrained(folder)
    with around(Checkpoint(folder)) as cell:
        cell.start_all()
        steps_equal_whole(cell, STEPS)


def beginning_with(split: Trunk, prefix: Segment, rest: list[int]) -> Segment:
    return part(rest, split.cache(ROOM, prefix.cache, len(prefix)), prefix.serving)


def test_a_shared_prefix_may_be_computed_in_the_same_step_or_before(cell: Cell) -> None:
    cell.start_all()
    split, served = cell.station.trunk(), RequestContext(TopK())
    shared, rests = [3, 14, 15, 9], [[26], [5, 35, 8], [9, 7], [1, 2]]
    prefix = part(shared, split.cache(ROOM), served)
    together = [beginning_with(split, prefix, ids) for ids in rests[:3]]
    split.forward([prefix, *together])
    later = beginning_with(split, prefix, rests[3])
    split.forward([later, *(part([4], segment.cache, served) for segment in together)])
    for segment, ids in zip([*together, later], rests, strict=True):
        expected = whole(cell.checkpoint, shared + ids)
        torch.testing.assert_close(segment.logits, expected[4:], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(prefix.logits, expected[:4], atol=1e-5, rtol=1e-5)


def test_only_the_requested_logits_are_returned(cell: Cell) -> None:
    cell.start_all()
    split, served = cell.station.trunk(), RequestContext(TopK())
    draws = generator([1], CPU)
    none, last = (Segment([1, 2, 3], split.cache(ROOM), served, draws, wanted) for wanted in (0, 1))
    split.forward([none, last])
    assert none.logits.shape == (0, 40)
    torch.testing.assert_close(last.logits, whole(cell.checkpoint, [1, 2, 3])[-1:])


def test_requests_of_different_policies_share_a_step(cell: Cell) -> None:
    cell.channel.state = emulating(flops=1e15, rate_bps=1e9)
    cell.start_all()
    split, policies = cell.station.trunk(), (TopK(), Random(), Top1(), TopK(), Random())
    ids = [[n, n + 1, n + 2] for n in range(len(policies))]

    def parts() -> list[Segment]:
        served = [RequestContext(policy, trace=RoutingTrace()) for policy in policies]
        return [part(i, split.cache(ROOM), s) for i, s in zip(ids, served, strict=True)]

    together, alone = parts(), parts()
    split.forward(together)
    for segment in alone:
        split.forward([segment])
    for one, other in zip(together, alone, strict=True):
        torch.testing.assert_close(one.logits, other.logits, atol=1e-5, rtol=1e-5)
        assert one.serving.meter.used == other.serving.meter.used
        assert one.serving.meter.deselected == other.serving.meter.deselected
        assert np.array_equal(routes(one), routes(other))
    assert together[2].serving.meter.used.total() == 3 * 3
    assert together[2].serving.meter.deselected.total() == 3 * 3
    assert together[0].serving.meter.batched_s == together[2].serving.meter.batched_s > 0


def test_a_layer_has_one_channel_state_for_all_policies(
    cell: Cell, monkeypatch: pytest.MonkeyPatch
) -> None:
    near = emulating(flops=1e15, rate_bps=1e9)
    away = replace(near.devices[0], reachable=False)
    states = itertools.cycle([replace(near, devices=(away, *near.devices[1:])), near])
    cell.channel.state = near
    cell.start_all()
    split = cell.station.trunk()
    parts = [part([n, n + 1, n + 2], split.cache(ROOM), RequestContext(Random())) for n in range(8)]
    monkeypatch.setattr(cell.channel, "current", lambda: next(states))
    split.forward(parts)
    for segment in parts:
        assert 0 < segment.serving.meter.eq8_s < math.inf
        assert segment.serving.meter.batched_s < math.inf


def routes(segment: Segment) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    """Layer, token, experts and whether they were used, from its request's trace."""
    assert segment.serving.trace is not None
    with np.load(io.BytesIO(segment.serving.trace.npz())) as file:
        columns = [file[name].reshape(9, -1) for name in ("layer", "token", "expert", "kept")]
        return np.concatenate(columns, axis=1).astype(np.int64)


def test_a_lost_expert_counts_for_the_request_of_its_token(cell: Cell) -> None:
    cell.channel.state = emulating(flops=1e15, rate_bps=1e9)
    for q in (0, 1, 3):
        cell.start(q)
    cell.admit(0, 1, 3)
    split, parts = cell.station.trunk(), []
    for n in range(4):
        parts.append(part([n, n + 9, n + 18, n + 27], split.cache(ROOM), RequestContext(TopK())))
    split.forward(parts)
    lost = [segment.serving.meter.dropped for segment in parts]
    absent = {"device": "2", "reason": "absent"}
    counted = [
        cell.counted("wdmoe_expert_dropped_total", **absent, layer=str(layer)) for layer in range(3)
    ]
    assert sum(losses.total() for losses in lost) == sum(counted) > 0
    for segment, losses in zip(parts, lost, strict=True):
        alone = RequestContext(TopK())
        forward(split, segment.ids, split.cache(ROOM), alone)
        assert alone.meter.dropped == losses
        assert alone.meter.eq8_s == pytest.approx(segment.serving.meter.eq8_s)
        assert alone.meter.eq8_s > 0
