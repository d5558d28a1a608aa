"""The share of a message's time that the stack itself causes."""

import pytest

from orchestrator.contracts.verification import Series
from orchestrator.verify.result import Unshaped, summarise

ONE_PACKET = Unshaped(link=[0.8e-3, 0.9e-3, 5e-3], loopback=[0.1e-3])


def series(measured_s: float, unshaped: Unshaped, smallest: Unshaped = ONE_PACKET) -> Series:
    shaped = [(measured_s, 10e-3)]
    return summarise(2, "up", 1 << 16, 500_000, 0.0, shaped, unshaped, smallest)


def test_a_message_costs_a_packets_time_and_its_extra_time_on_loopback() -> None:
    found = series(11.3e-3, Unshaped(link=[3e-3], loopback=[0.5e-3, 0.6e-3, 2e-3]))
    assert found.cost_s == pytest.approx(0.9e-3 + 0.5e-3)
    assert found.unshaped_s == 3e-3
    assert found.error == pytest.approx(-0.01)
    assert found.error_as_is == pytest.approx(0.13)


def test_a_packet_costs_its_own_time() -> None:
    assert series(11e-3, ONE_PACKET).cost_s == pytest.approx(0.9e-3)


def test_no_message_costs_less_than_a_packet() -> None:
    assert series(11e-3, Unshaped([2e-3], [0.05e-3])).cost_s == pytest.approx(0.9e-3)
