"""Which answers of devices the dispatcher accepts."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from services.bs.batch.expert_call import align_clock
from services.net import wire
from tests.harness.cell import Cell, emulating
from tests.harness.one_layer import expert, run_layer


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


def test_an_answer_to_a_layer_that_failed_is_counted_and_ignored(cell: Cell) -> None:
    device = cell.socket(1)
    cell.say(device, cell.hello(1))
    with pytest.raises(IndexError):  # invalid candidates, found while the device works
        run_layer(cell, [[1, 4]], [[1.0, 0.0]], candidates=[[1]])
    work = wire.decode(device.recv_multipart())
    assert isinstance(work, wire.Work)
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
