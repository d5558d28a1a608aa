"""Admission: only devices of the stack that hold the same model are admitted."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from services.net import wire
from tests.harness.cell import EXPERTS, Cell


@pytest.mark.parametrize(
    ("field", "value"),
    [("fingerprint", "another"), ("expert", 2), ("layers", 4), ("hidden_size", 8), ("device", 2)],
)
def test_a_device_that_does_not_fit_is_refused_with_the_field(
    cell: Cell, field: str, value: Any
) -> None:
    hello = replace(cell.hello(1), **{field: value})
    answer = cell.say(cell.socket(1), hello)
    assert isinstance(answer, wire.Refused)
    assert answer.reason.startswith(f"{field} is {value!r}")
    assert not cell.devices.devices[1].admitted
    assert cell.devices.devices[1].refused == answer.reason


def test_a_device_of_another_build_is_admitted_and_its_build_is_kept(cell: Cell) -> None:
    hello = replace(cell.hello(1), build="source 0123, torch 2.9.0")
    assert cell.say(cell.socket(1), hello) == wire.Welcome()
    assert cell.devices.devices[1].build == "source 0123, torch 2.9.0"
    assert cell.devices.devices[0].build is None


def test_noise_is_counted_and_the_connection_survives(cell: Cell) -> None:
    device = cell.socket(1)
    for frames in ([b"noise"], [b""], [b"\x80"] * 9, [b"x" * 100_000]):
        device.send_multipart(frames)
    assert cell.say(device, cell.hello(1)) == wire.Welcome()
    assert (
        sum(
            cell.counted("wdmoe_refused_messages_total", reason=reason)
            for reason in ("malformed", "frames", "size")
        )
        == 4
    )


def test_a_sender_that_is_no_device_of_the_stack_is_ignored(cell: Cell) -> None:
    stranger = cell.socket(EXPERTS)
    stranger.send_multipart(wire.encode(cell.hello(0)))
    known = cell.socket(1)
    assert cell.say(known, cell.hello(1)) == wire.Welcome()
    cell.dispatcher.socket.poll(200)
    cell.dispatcher.take_in()
    assert not stranger.poll(100)
    assert cell.counted("wdmoe_refused_messages_total", reason="identity") == 1
