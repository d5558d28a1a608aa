"""Probes of a link: real device servers over real sockets, and the times that are expected."""

import threading
import time
from dataclasses import replace

import pytest

from orchestrator.contracts.channel_state import ChannelState, DeviceState, Direction
from orchestrator.contracts.http import Probes
from services.bs.experts.prober import Prober, ProbeSeries
from services.net import wire
from services.net.channel_feed import ChannelFeed
from tests.harness.cell import EXPERTS, Cell, emulating


def in_force(cell: Cell, *links: tuple[float, Direction, Direction]) -> None:
    """Announce states with equal links, each in force from a Unix time on."""
    for number, (apply_at_s, down, up) in enumerate(links):
        state = ChannelState(
            epoch=1,
            interval=number,
            apply_at_s=apply_at_s,
            profile="p",
            profile_sha256="0",
            devices=(DeviceState(down, up),) * EXPERTS,
        )
        cell.channel.announced.append(state)


def probe(cell: Cell, device: int, count: int = 3, curve: bool = False) -> Probes | str:
    request = ProbeSeries(device, 8192, count, lambda probes: None)
    prober = Prober(cell.dispatcher, cell.channel, curve)
    while (found := prober.advance(request)) is None:
        pass
    return found


def test_each_direction_is_timed_against_its_own_rate(cell: Cell) -> None:
    cell.start(1)
    cell.admit(1)
    in_force(cell, (time.time() - 1, Direction(8e6), Direction(4e6, delay_s=0.01)))
    probes = probe(cell, 1)
    assert isinstance(probes, Probes)
    assert 8 * (8192 + 6 * 66) < probes.wire_bits < 8 * (8192 + 6 * 66 + 150)
    assert (len(probes.down), len(probes.up), len(probes.loopback_s)) == (3, 3, 3)
    assert min(probes.loopback_s) > 0
    for down, up in zip(probes.down, probes.up, strict=True):
        assert down.measured_s > 0 < up.measured_s
        assert down.expected_s == pytest.approx(probes.wire_bits / 8e6)
        assert up.expected_s == pytest.approx(probes.wire_bits / 4e6 + 0.01)


def test_no_time_is_expected_before_the_first_channel_state(cell: Cell) -> None:
    cell.start(0)
    cell.admit(0)
    probes = probe(cell, 0, count=1)
    assert isinstance(probes, Probes)
    assert probes.down[0].expected_s is None


def test_an_absent_device_is_reported_and_a_silent_one_is_given_up(cell: Cell) -> None:
    assert probe(cell, 2) == "device-2 does not answer"
    mute = cell.socket(2)
    assert isinstance(cell.say(mute, cell.hello(2)), wire.Welcome)
    assert probe(cell, 2) == "device-2 does not answer"
    assert not cell.devices.devices[2].admitted


def test_an_answer_to_another_probe_is_ignored(cell: Cell) -> None:
    mute, other = cell.socket(2), cell.socket(3)
    assert isinstance(cell.say(mute, cell.hello(2)), wire.Welcome)
    assert isinstance(cell.say(other, cell.hello(3)), wire.Welcome)
    stale = wire.Probed(99, b"", 0.0, 0.0)
    mute.send_multipart(wire.encode(stale))
    for number in range(5):  # another device guesses the number
        other.send_multipart(wire.encode(replace(stale, id=number)))
    assert probe(cell, 2) == "device-2 does not answer"


def test_a_cancelled_probe_is_not_waited_for(cell: Cell) -> None:
    mute = cell.socket(2)
    assert isinstance(cell.say(mute, cell.hello(2)), wire.Welcome)
    cell.channel.state = emulating(flops=1e12, rate_bps=1e4)  # 7 s each way, and as much again
    request = ProbeSeries(2, 8192, 3, lambda probes: None)
    timer = threading.Timer(0.3, setattr, (request, "cancelled", True))
    timer.start()
    began_s = time.monotonic()
    Prober(cell.dispatcher, cell.channel, curve=False).advance(request)
    assert time.monotonic() - began_s < 7
    assert cell.devices.devices[2].admitted


def test_a_probe_that_holds_the_engine_too_long_is_refused_with_the_reason(cell: Cell) -> None:
    cell.start(1)
    cell.admit(1)
    cell.channel.state = emulating(flops=1e12, rate_bps=1e3)
    found = probe(cell, 1)
    assert isinstance(found, str)
    assert found.startswith("size_bytes: 8192 take 13")
    assert found.endswith("s on the link of device-1 as it is now; allowed: up to 60 s")


def test_past_states_are_kept_in_order(cell: Cell) -> None:
    now = time.time()
    links = [(now - 30 + n, Direction(n + 1.0), Direction()) for n in range(20)]
    in_force(cell, *links)

    def rates(start_s: float) -> list[float | None]:
        return [s.devices[0].down.rate_bps for s in ChannelFeed.since(cell.channel, start_s)]

    assert rates(now - 12.5) == [18.0, 19.0, 20.0]
    assert rates(now) == [20.0]
    assert rates(now - 31) == []
