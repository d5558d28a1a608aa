"""A device whose link is not as the state in force says does not serve, until it is."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from services.net import wire
from tests.harness.cell import EXPERTS, Cell
from tests.unit.bs.experts.test_dispatcher import expert, run_layer


def taken_in(cell: Cell, holds: Callable[[], bool]) -> None:
    """The base station reads what arrives until something holds."""
    deadline = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < deadline, "did not happen within 10 s"
        cell.dispatcher.socket.poll(50)
        cell.dispatcher.take_in()


def test_work_is_not_computed_over_a_link_that_is_not_as_in_force(cell: Cell) -> None:
    cell.start_all()
    cell.links[1].reason = "tc: ended without a word"
    began_s = time.monotonic()
    hidden, output, meter = run_layer(cell, [[0, 1], [2, 3]], [[0.75, 0.25], [0.5, 0.5]])
    assert time.monotonic() - began_s < 1  # it says so: nobody waits for the time-out of 1.5 s
    assert meter.dropped == {1: 1}
    torch.testing.assert_close(output[0], expert(cell, 0, hidden)[0])
    assert not cell.roster.devices[1].admitted
    assert cell.roster.devices[1].refused == "link: tc: ended without a word"


def test_an_idle_device_leaves_and_comes_back(cell: Cell) -> None:
    cell.start_all()
    device = cell.roster.devices[2]
    cell.links[2].reason = "the radio interface is gone"
    taken_in(cell, lambda: not device.admitted)
    assert device.refused == "link: the radio interface is gone"
    taken_in(cell, lambda: time.monotonic() - device.last_seen_s > 0.1)
    assert not device.admitted  # it is heard again and again, and stays out
    cell.links[2].reason = None
    taken_in(cell, lambda: device.admitted)
    assert device.refused is None
    assert all(cell.roster.devices[q].admitted for q in range(EXPERTS))


def test_a_fault_that_was_over_in_between_counts(cell: Cell) -> None:
    cell.start_all()
    cell.links[3].faults += 1
    _, _, meter = run_layer(cell, [[0, 3]], [[0.5, 0.5]])
    assert meter.dropped == {3: 1}
    assert cell.roster.devices[3].refused == "link: it was put right again"
    taken_in(cell, lambda: cell.roster.devices[3].admitted)
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
    taken_in(cell, lambda: cell.roster.devices[1].refused is not None)
    assert not socket.poll(100)  # it is not asked who it is, which it would say too often
