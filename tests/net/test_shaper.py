"""The shaper's queues on a real kernel: set up, changed, counted and read back."""

import subprocess

import pytest

from tests.net.conftest import WAYS, Link, Way

KIB = 1024


def has_netem() -> bool:
    probe = ["unshare", "--net", "tc", "qdisc", "add", "dev", "lo", "root", "netem", "delay", "1ms"]
    return subprocess.run(probe, capture_output=True, check=False).returncode == 0


def test_the_backend_is_netem_where_the_kernel_has_it(link: Link) -> None:
    assert link.backend == ("netem" if has_netem() else "tbf")
    assert sum(qdisc["kind"] == link.backend for qdisc in link.qdiscs()) == 2


def test_settings_are_read_back_for_each_direction(link: Link) -> None:
    applied = link.shape({"rate_bps": 20e6}, {"rate_bps": 5e6})
    assert applied["down"]["rate_bps"] == pytest.approx(20e6, rel=1e-6)
    assert applied["up"]["rate_bps"] == pytest.approx(5e6, rel=1e-6)
    assert link.read() == applied


def test_a_removed_rate_no_longer_limits(link: Link) -> None:
    link.shape_both(rate_bps=1e6)
    slow = link.fastest_s(8 * KIB, 8 * KIB, n=3)
    applied = link.shape()
    assert [applied[way]["rate_bps"] for way in WAYS] == [None, None]
    fast = link.fastest_s(8 * KIB, 8 * KIB, n=3)
    assert max(fast) < min(slow) / 5


def test_every_change_sets_every_field(link: Link) -> None:
    link.shape_both(rate_bps=30e6)
    before = link.qdiscs()
    link.shape_both(rate_bps=20e6, delay_s=0.004, jitter_s=0.001, loss_p=0.02, loss_r=0.5)
    assert link.qdiscs() != before
    link.shape_both(rate_bps=30e6)
    assert link.qdiscs() == before


@pytest.mark.parametrize("way", WAYS)
def test_packets_are_counted_in_their_direction(link: Link, way: Way) -> None:
    before = link.shape_both(rate_bps=50e6)
    link.send(way, 100)
    assert len(link.arrivals(way)) == 100
    after = link.read()
    # the kernel may have sent address requests in between
    assert 100 <= after[way]["packets"] - before[way]["packets"] <= 105
    assert after[way]["drops"] == after[way]["backlog_bytes"] == 0


@pytest.mark.parametrize("way", WAYS)
def test_an_overflowing_queue_reports_its_drops(link: Link, way: Way) -> None:
    link.shape_both(rate_bps=100e3)
    if link.backend == "netem":
        link.change_by_hand(way, "parent 1:1 handle 10: netem limit 5 delay 10ms")
    else:
        link.change_by_hand(way, "root handle 1: tbf rate 100kbit burst 1600 limit 8000")
    link.send(way, 50)
    arrived = len(link.arrivals(way))
    assert 5 <= arrived < 10
    assert 50 - arrived <= link.read()[way]["drops"] <= 55 - arrived


@pytest.mark.parametrize("way", WAYS)
def test_the_queue_has_room_for_thousands_of_packets(link: Link, way: Way) -> None:
    link.shape_both(rate_bps=10e3)
    link.send(way, 5000)
    queue = link.read()[way]
    assert queue["backlog_bytes"] > 4990 * 1514
    assert queue["drops"] == 0
    link.shape()
    assert len(link.arrivals(way)) == 5000
    assert link.read()[way]["backlog_bytes"] == 0


def test_an_error_of_tc_is_reported_and_the_next_change_is_applied(link: Link) -> None:
    link.change_by_hand("up", "root handle 1: tbf rate 1mbit burst 1600 limit 8000")
    assert link.shape_both(rate_bps=-1)["error"].startswith("tc: ")
    assert link.shape_both(rate_bps=2e6)["up"]["rate_bps"] == pytest.approx(2e6)
