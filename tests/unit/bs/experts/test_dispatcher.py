"""The base station's dispatcher against real device servers over real sockets."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest
import torch
from transformers import MixtralForCausalLM

from orchestrator.contracts.channel_state import DeviceState, Direction
from orchestrator.selection.policies.topk import TopK
from services.bs.batch.batch import ForwardBatch
from services.bs.batch.request_context import RequestContext
from services.net import wire
from tests.harness.cell import EXPERTS, ROOM, Cell, emulating, forward, part
from tests.harness.one_layer import chosen, expert, run, run_layer

pytestmark = pytest.mark.slow


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
