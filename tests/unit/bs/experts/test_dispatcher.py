"""The base station's dispatcher against real device servers over real sockets."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import MixtralConfig, MixtralForCausalLM

from orchestrator.contracts.channel_state import DeviceState, Direction
from orchestrator.moe.checkpoint import Checkpoint
from orchestrator.selection import Selection
from orchestrator.selection.policies.topk import TopK
from services.bs.batch.batch import ForwardBatch
from services.bs.batch.decision import RoutingDecision
from services.bs.batch.expert_call import align_clock
from services.bs.batch.layer_record import LayerRecord
from services.bs.batch.request_context import RequestContext
from services.bs.experts.latency_estimator import ENOUGH
from services.bs.experts.patience import LEAST_FLOPS
from services.device.experts import Experts
from services.net import wire
from tests.harness.cell import CPU, EXPERTS, ROOM, TINY, Cell, around, emulating, forward, part

pytestmark = pytest.mark.slow


def chosen(
    cell: Cell,
    index: list[list[int]],
    weight: list[list[float]],
    candidates: list[list[int]] | None = None,
) -> RoutingDecision:
    """A decision for len(index) tokens, of experts that can all be reached."""
    before = torch.tensor(candidates or index)
    selected = Selection(torch.tensor(index), torch.tensor(weight), before)
    return RoutingDecision(
        selected=selected,
        used=selected,
        logits=torch.zeros(len(index), EXPERTS),
        latency_s=np.zeros(EXPERTS),
        reachable=torch.ones(EXPERTS, dtype=torch.bool),
        channel=cell.channel.current(),
    )


def run(
    cell: Cell, hidden: torch.Tensor, decision: RoutingDecision, batch: ForwardBatch
) -> torch.Tensor:
    """Run layer 1 as RemoteMoe does after selection."""
    record = LayerRecord(1, decisions=[decision])
    cell.dispatcher.send(hidden, record)
    cell.station.layer_metrics.book_selection(record, batch)
    cell.dispatcher.wait()
    output = cell.dispatcher.combine(hidden, record)
    cell.station.layer_metrics.book_answers(record, batch)
    batch.book(record)
    return output


def run_layer(
    cell: Cell,
    index: list[list[int]],
    weight: list[list[float]],
    candidates: list[list[int]] | None = None,
) -> Any:
    """Run a layer over len(index) tokens; return the inputs, the output, and the meter."""
    torch.manual_seed(1)
    hidden = torch.randn(len(index), 16)
    choice = chosen(cell, index, weight, candidates)
    served = RequestContext(TopK())
    step = ForwardBatch([part([0] * len(index), cell.station.trunk().cache(ROOM), served)], EXPERTS)
    output = run(cell, hidden, choice, step)
    step.close()
    return hidden, output, served.meter


def expert(cell: Cell, q: int, hidden: torch.Tensor) -> torch.Tensor:
    return Experts(cell.checkpoint, q, CPU, torch.float32)(1, hidden)


def test_the_split_model_computes_what_the_whole_one_does(cell: Cell) -> None:
    for q in range(EXPERTS):
        cell.start(q)
    cell.admit(*range(EXPERTS))
    split, served = cell.station.trunk(), RequestContext(TopK())
    whole = MixtralForCausalLM.from_pretrained(cell.checkpoint.folder, dtype=torch.float32)
    ids = [3, 14, 15, 9, 26, 5, 35]
    cache = split.cache(ROOM)
    rows = [forward(split, part, cache, served) for part in (ids[:4], *([i] for i in ids[4:]))]
    with torch.inference_mode():
        expected = whole(torch.tensor([ids])).logits[0]
    torch.testing.assert_close(torch.cat(rows), expected, atol=1e-5, rtol=1e-5)
    assert sum(served.meter.used.values()) == len(ids) * 2 * 3
    assert served.meter.dropped == served.meter.deselected == {}


def test_outputs_are_summed_by_weight(cell: Cell) -> None:
    cell.start(0)
    cell.start(2)
    cell.admit(0, 2)
    hidden, output, meter = run_layer(cell, [[0, 2], [2, 4]], [[0.75, 0.25], [1.0, 0.0]])
    first, second = expert(cell, 0, hidden), expert(cell, 2, hidden)
    expected = torch.stack([0.75 * first[0] + 0.25 * second[0], second[1]])
    torch.testing.assert_close(output, expected)
    assert meter.used == {0: 1, 2: 2}
    assert meter.device_messages == 2


def test_an_absent_device_costs_only_its_share(cell: Cell) -> None:
    cell.start(0)
    cell.admit(0)
    hidden, output, meter = run_layer(cell, [[0, 3]], [[0.6, 0.4]])
    torch.testing.assert_close(output, expert(cell, 0, hidden))
    assert meter.dropped == {3: 1}
    reason = {"device": "3", "layer": "1", "reason": "unreachable"}
    assert cell.counted("wdmoe_expert_dropped_total", **reason) == 1


def test_a_device_that_falls_silent_during_its_work_is_given_up(cell: Cell) -> None:
    cell.start(0)
    mute = cell.socket(1)
    assert cell.say(mute, cell.hello(1)) == wire.Welcome()
    cell.admit(0, 1)
    hidden, output, meter = run_layer(cell, [[0, 1], [1, 4]], [[0.6, 0.4], [1.0, 0.0]])
    torch.testing.assert_close(output[0], expert(cell, 0, hidden)[0])
    assert torch.equal(output[1], torch.zeros(16))
    assert meter.dropped == {1: 2}
    assert not cell.devices.devices[1].admitted
    assert cell.counted("wdmoe_device_up", device="1") == 0
    assert cell.counted("wdmoe_slowest_device_total", device="1") == 1
    assert cell.counted("wdmoe_slowest_device_total", device="0") == 0
    assert cell.counted("wdmoe_radio_bytes_total", device="1", direction="down") == 0
    work = wire.decode(mute.recv_multipart())
    assert isinstance(work, wire.Work)
    assert cell.say(mute, wire.Beat()) == wire.Identify()
    assert cell.say(mute, cell.hello(1)) == wire.Welcome()


def test_a_device_that_leaves_during_its_work_is_not_waited_for(
    cell: Cell, capsys: pytest.CaptureFixture[str]
) -> None:
    cell.channel.state = emulating(flops=1e8)  # so that an answer may take a minute
    leaving = cell.socket(1)
    cell.say(leaving, cell.hello(1))

    def leave() -> None:
        leaving.recv_multipart()
        leaving.close(linger=0)

    threading.Thread(target=leave, daemon=True).start()
    _, _, meter = run_layer(cell, [[1, 4]], [[1.0, 0.0]])
    assert meter.dropped == {1: 1}
    assert "device-1 lost: unreachable" in capsys.readouterr().out


def test_a_sequence_without_any_expert_in_a_layer_is_detected(cell: Cell) -> None:
    cell.start(0)
    mute = cell.socket(1)
    cell.say(mute, cell.hello(1))
    cell.admit(0, 1)
    split, policy = cell.station.trunk(), TopK()
    servings = [RequestContext(policy) for _ in range(4)]
    parts = [
        part([0] * tokens, split.cache(ROOM), served)
        for tokens, served in zip((2, 1, 2, 1), servings, strict=True)
    ]
    index = [[0, 1], [1, 4], [1, 4], [0, 4], [1, 4], [4, 4]]  # the last is the policy's choice
    choice = chosen(cell, index, [[0.5, 0.5]] * len(index))
    step = ForwardBatch(parts, EXPERTS)
    # Tokens without an expert: one of the first sequence's two, the second's only one, one of the
    # third's two.
    run(cell, torch.randn(len(index), 16), choice, step)
    assert [served.untouched for served in servings] == [None, 1, None, None]


class SlowExperts(Experts):
    """The experts of a device that computes `flops` FLOP/s."""

    flops: float

    def __call__(self, layer: int, x: torch.Tensor) -> torch.Tensor:
        gate_up, _ = self._weights[layer]
        time.sleep(3 * gate_up.numel() * len(x) / self.flops)
        return super().__call__(layer, x)


def slow(flops: float) -> type[Experts]:
    return type("Slow", (SlowExperts,), {"flops": flops})


def test_the_deadline_of_a_long_prompt_includes_its_computing_time(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("large")
    config = {**TINY.to_dict(), "intermediate_size": 4096, "num_hidden_layers": 2}
    MixtralForCausalLM(MixtralConfig(**config)).save_pretrained(folder)
    with around(Checkpoint(folder)) as cell:
        cell.start(0, slow(0.5 * LEAST_FLOPS))
        cell.admit(0)
        _, _, meter = run_layer(cell, [[0, 4]] * 3000, [[1.0, 0.0]] * 3000)
    assert meter.compute_s > 1.5  # the time-out
    assert meter.used == {0: 3000}


def test_the_deadline_of_a_device_follows_its_measured_speed(cell: Cell) -> None:
    token_s = 0.02
    cell.start(0, slow(6 * 16 * 24 / token_s))
    cell.admit(0)
    for n in range(1, ENOUGH):
        run_layer(cell, [[0, 4]] * n, [[1.0, 0.0]] * n)
    _, _, meter = run_layer(cell, [[0, 4]] * 100, [[1.0, 0.0]] * 100)
    assert meter.compute_s > 1.5
    assert meter.used == {0: 100}


def test_a_device_that_computes_for_an_abandoned_layer_is_not_silent(cell: Cell) -> None:
    cell.channel.state = emulating(flops=1e9)
    cell.start(0)
    cell.admit(0)
    with pytest.raises(IndexError):  # while the device works, for 3 s
        run_layer(cell, [[0, 4]] * 9, [[1.0, 0.0]] * 9, candidates=[[1]])
    time.sleep(2)
    cell.dispatcher.take_in()
    assert cell.devices.devices[0].admitted


def test_a_failed_layer_leaves_no_work_behind(cell: Cell) -> None:
    cell.start(0)
    mute = cell.socket(1)
    cell.say(mute, cell.hello(1))
    cell.admit(0, 1)
    with pytest.raises(IndexError):  # invalid candidates, found while device 1 works
        run_layer(cell, [[1, 4]], [[1.0, 0.0]], candidates=[[1]])
    hidden, output, meter = run_layer(cell, [[0, 4]], [[1.0, 0.0]])
    torch.testing.assert_close(output, expert(cell, 0, hidden))
    assert meter.used == {0: 1}
    assert cell.devices.devices[1].admitted  # the layer has not waited for it


def fake_answer(work: wire.Work, **changes: Any) -> wire.Done:
    y = wire.Payload.of(torch.ones(work.x.shape), "fp32")
    fields = {"id": work.id, "y": y, "pad": b"", "overrun": False}
    times = dict.fromkeys(("received_s", "started_s", "finished_s", "sent_s"), time.monotonic())
    return wire.Done(**{**fields, **times, **changes})


@pytest.mark.parametrize(
    "changes",
    [
        {"y": wire.Payload.of(torch.ones(2, 16), "fp32")},
        {"y": wire.Payload.of(torch.ones(1, 15), "fp32")},
        {"y": wire.Payload.of(torch.full((1, 16), float("nan")), "fp32")},
        {"started_s": 0.5},
        {"received_s": -401_302.0},
        {"sent_s": 1e12},
    ],
    ids=[
        *("too many rows", "too narrow", "not finite", "times out of order"),
        *("received before it was sent", "sent after it arrived"),
    ],
)
def test_an_answer_that_cannot_be_right_is_dropped_and_counted(
    cell: Cell, changes: dict[str, Any]
) -> None:
    cell.start(0)
    liar = cell.socket(1)
    assert cell.say(liar, cell.hello(1)) == wire.Welcome()
    cell.admit(0, 1)

    def lie() -> None:
        work = wire.decode(liar.recv_multipart())
        assert isinstance(work, wire.Work)
        liar.send_multipart(wire.encode(fake_answer(work, **changes)))

    threading.Thread(target=lie, daemon=True).start()
    hidden, output, meter = run_layer(cell, [[0, 1]], [[0.5, 0.5]])
    torch.testing.assert_close(output, expert(cell, 0, hidden))
    assert meter.dropped == {1: 1}
    assert cell.counted("wdmoe_refused_messages_total", reason="answer") == 1
    assert cell.counted("wdmoe_uplink_seconds_count", device="1") == 0
    assert cell.counted("wdmoe_radio_bytes_total", device="1", direction="up") == 0


@given(clock_s=st.floats(-1e6, 1e6), parts_s=st.lists(st.floats(0, 0.2), min_size=5, max_size=5))
def test_times_of_another_clock_are_moved_between_sending_and_arrival(
    clock_s: float, parts_s: list[float]
) -> None:
    down, wait, compute, pack, _ = parts_s
    x = wire.Work(1, 0, wire.Payload.of(torch.ones(1, 1), "fp32"), b"")
    received_s = clock_s + down
    done = fake_answer(
        x,
        received_s=received_s,
        started_s=received_s + wait,
        finished_s=received_s + wait + compute,
        sent_s=received_s + wait + compute + pack,
    )
    ours_s = 1000.0
    found = align_clock(done, ours_s, ours_s + sum(parts_s))
    assert found.finished_s - found.started_s == pytest.approx(compute, abs=1e-6)
    assert found.received_s >= ours_s - 1e-6
    assert found.sent_s <= ours_s + sum(parts_s) + 1e-6


def test_an_unexpected_answer_is_counted_and_ignored(cell: Cell) -> None:
    device = cell.socket(1)
    cell.say(device, cell.hello(1))
    work = wire.Work(77, 0, wire.Payload.of(torch.ones(1, 16), "fp32"), b"")
    device.send_multipart(wire.encode(fake_answer(work)))
    assert cell.say(device, cell.hello(1)) == wire.Welcome()
    assert cell.counted("wdmoe_refused_messages_total", reason="late") == 1


def test_a_device_cannot_fail_the_work_of_another(cell: Cell) -> None:
    cell.start(0)
    other = cell.socket(1)
    cell.say(other, cell.hello(1))
    cell.admit(0, 1)
    cell.channel.state = emulating(flops=1e9)  # the answer takes long enough for the other to lie
    lie = wire.encode(wire.Failed(0, "not mine"))
    threading.Timer(0.05, other.send_multipart, [lie]).start()
    hidden, output, meter = run_layer(cell, [[0, 4]], [[1.0, 0.0]])
    torch.testing.assert_close(output, expert(cell, 0, hidden))
    assert meter.dropped == {}
    assert cell.counted("wdmoe_refused_messages_total", reason="failed") == 1


def test_an_emulated_model_pads_the_wire_and_holds_the_answer_back(cell: Cell) -> None:
    cell.channel.state = emulating(flops=1e10)
    cell.start(0)
    cell.admit(0)
    _, _, meter = run_layer(cell, [[0, 4]] * 3, [[1.0, 0.0]] * 3)
    tokens, bits, flop = 3, 65_536, 6 * 4096 * 14336 + 5 * 14336
    assert meter.compute_s == pytest.approx(tokens * flop / 1e10, rel=0.1)
    assert meter.overruns == 0
    for direction in ("down", "up"):
        labels = {"device": "0", "direction": direction}
        sent = cell.counted("wdmoe_radio_bytes_total", **labels)
        assert tokens * bits / 8 <= sent <= tokens * bits / 8 + 300


def test_an_answer_later_than_the_emulated_devices_is_an_overrun(cell: Cell) -> None:
    cell.channel.state = emulating(flops=1e18)
    cell.start(0)
    cell.admit(0)
    _, _, meter = run_layer(cell, [[0, 4]], [[1.0, 0.0]])
    assert meter.overruns == 1
    assert cell.counted("wdmoe_overruns_total", device="0") == 1


def test_eq8_adds_up_the_slowest_expert_of_every_token(cell: Cell) -> None:
    slow = emulating(flops=1e12, rate_bps=1e9)
    fast = DeviceState(down=Direction(rate_bps=4e9), up=Direction(rate_bps=2e9), flops=2e12)
    cell.channel.state = replace(slow, devices=(fast, *slow.devices[1:]))
    for q in (0, 1):
        cell.start(q)
    cell.admit(0, 1)
    _, _, meter = run_layer(cell, [[0, 1], [0, 4]], [[0.5, 0.5], [1.0, 0.0]])
    flop = 6 * 4096 * 14336 + 5 * 14336
    t_0 = 65_536 / 4e9 + flop / 2e12 + 65_536 / 2e9
    t_1 = 65_536 / 1e9 + flop / 1e12 + 65_536 / 1e9
    assert meter.eq8_s == pytest.approx(t_1 + t_0, rel=1e-9)
    assert meter.batched_s == pytest.approx(max(2 * t_0, t_1), rel=1e-9)


def test_a_device_in_outage_is_not_used(cell: Cell) -> None:
    state = emulating(flops=1e12)
    gone = replace(state.devices[2], reachable=False)
    cell.channel.state = replace(state, devices=(*state.devices[:2], gone, state.devices[3]))
    for q in range(EXPERTS):
        cell.start(q)
    cell.admit(*range(EXPERTS))
    assert cell.dispatcher.reachable().tolist() == [True, True, False, True]
    split, served = cell.station.trunk(), RequestContext(TopK())
    forward(split, list(range(20)), split.cache(ROOM), served)
    assert 2 not in served.meter.used
    assert served.meter.dropped == {}
    assert served.meter.outage.keys() == {2}
    outage = {"device": "2", "reason": "outage"}
    lost = [cell.counted("wdmoe_expert_dropped_total", **outage, layer=str(i)) for i in range(3)]
    assert sum(lost) == served.meter.outage[2]
