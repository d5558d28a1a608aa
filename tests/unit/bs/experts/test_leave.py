"""A device whose link does not match the state in force does not serve until it does."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from services.net import wire
from tests.harness.cell import EXPERTS, Cell
from tests.harness.one_layer import expert, run_layer


def read_until(cell: Cell, holds: Callable[[], bool]) -> None:
    """Let the base station read messages until a condition holds."""
    deadline = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < deadline, "did not happen within 10 s"
        cell.dispatcher.socket.poll(50)
        cell.dispatcher.take_in()


def test_a_device_with_a_link_fault_does_not_compute(cell: Cell) -> None:
    cell.start_all()
    cell.links[1].reason = "tc: ended without a word"
    began_s = time.monotonic()
    hidden, output, meter = run_layer(cell, [[0, 1], [2, 3]], [[0.75, 0.25], [0.5, 0.5]])
    assert time.monotonic() - began_s < 1  # it sends Leave, so the time-out of 1.5 s does not apply
    assert meter.dropped == {1: 1}
    torch.testing.assert_close(output[0], expert(cell, 0, hidden)[0])
    assert not cell.devices.devices[1].admitted
    assert cell.devices.devices[1].refused == "link: tc: ended without a word"


def test_an_idle_device_leaves_and_comes_back(cell: Cell) -> None:
    cell.start_all()
    device = cell.devices.devices[2]
    cell.links[2].reason = "the radio interface is gone"
    read_until(cell, lambda: not device.admitted)
    assert device.refused == "link: the radio interface is gone"
    read_until(cell, lambda: time.monotonic() - device.last_seen_s > 0.1)
    assert not device.admitted  # it is still heard, and stays out
    cell.links[2].reason = None
    read_until(cell, lambda: device.admitted)
    assert device.refused is None
    assert all(cell.devices.devices[q].admitted for q in range(EXPERTS))


def test_a_fault_that_is_over_counts_too(cell: Cell) -> None:
    cell.start_all()
    cell.links[3].faults += 1
    _, _, meter = run_layer(cell, [[0, 3]], [[0.5, 0.5]])
    assert meter.dropped == {3: 1}
    assert cell.devices.devices[3].refused == "link: it was repaired"
    read_until(cell, lambda: cell.devices.devices[3].admitted)
    _, _, meter = run_layer(cell, [[0, 3]], [[0.5, 0.5]])
    assert meter.dropped == {}


def test_a_probe_ends_at_once_when_the_device_leaves(cell: Cell) -> None:
    cell.start_all()
    cell.links[0].reason = "no channel state was applied yet"
    began_s = time.monotonic()
    assert cell.dispatcher.probe(0, wire.padding(0, 1024), lambda: False) is None
    assert time.monotonic() - began_s < 1


def test_a_device_that_was_never_admitted_may_leave(cell: Cell) -> None:
    socket = cell.socket(1)
    socket.send_multipart(wire.encode(wire.Leave("link: no channel state was applied yet")))
    read_until(cell, lambda: cell.devices.devices[1].refused is not None)
    assert not socket.poll(100)  # it gets no Identify, which it would answer again and again
