"""Rate changes while packets wait, as with a fading radio."""

import threading
import time

import pytest

from tests.net.conftest import WAYS, Link, Way
from tests.net.datagrams import FULL_WIRE_BYTES

KIB = 1024


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("slow_bps", [10e3, 500e3])
def test_a_faster_rate_applies_at_once_to_queued_packets(
    link: Link, way: Way, slow_bps: float
) -> None:
    fast_bps, n = 20e6, 300
    link.shape_both(rate_bps=slow_bps)
    link.send(way, n)
    time.sleep(0.1)
    changed_s = time.monotonic()
    link.shape_both(rate_bps=fast_bps)
    arrived = link.arrivals(way)
    assert [number for number, _ in arrived] == list(range(n))
    before = sum(time_s < changed_s for _, time_s in arrived)
    queued_bits = 8 * FULL_WIRE_BYTES * (n - before)
    took_s = arrived[-1][1] - changed_s
    assert 0.9 * queued_bits / fast_bps < took_s < 0.2 * queued_bits / slow_bps


@pytest.mark.parametrize("way", WAYS)
def test_a_slower_rate_applies_at_once_to_queued_packets(link: Link, way: Way) -> None:
    # 0.9 s of packets: a host that is slow to change the rate still finds them in the queue
    n, slow_bps = 150, 500e3
    link.shape_both(rate_bps=2e6)
    link.send(way, n)
    link.shape_both(rate_bps=slow_bps)
    last = [time_s for _, time_s in link.arrivals(way)][n - 51 :]
    assert last[50] - last[0] == pytest.approx(8 * FULL_WIRE_BYTES * 50 / slow_bps, rel=0.3)


def test_a_hundred_changes_under_load_lose_no_byte(link: Link) -> None:
    done = threading.Event()
    messages = 0

    def talk() -> None:
        nonlocal messages
        while not done.is_set():
            link.times_s(64 * KIB, 64 * KIB)  # returns only when every byte has arrived
            messages += 1

    talker = threading.Thread(target=talk)
    talker.start()
    for step in range(100):
        rate_bps = 2e6 if step % 2 else 40e6
        applied = link.shape_both(rate_bps=rate_bps)
        assert applied["down"]["rate_bps"] == pytest.approx(rate_bps)
        time.sleep(0.02)
    done.set()
    talker.join()
    assert messages > 3
    link.arrivals("up", quiet_s=0.1)
    for queue in link.read().values():
        assert queue["drops"] == queue["backlog_bytes"] == 0
