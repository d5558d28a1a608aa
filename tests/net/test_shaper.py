"""The shaper on a real kernel: each direction has its own rate, delay and loss."""

import subprocess

import pytest

from tests.net.conftest import Link

KIB = 1024
# Bytes on the wire for each byte of data: Ethernet, IP and TCP headers of full segments.
FRAMING = 1514 / 1448


def has_netem() -> bool:
    probe = ["unshare", "--net", "tc", "qdisc", "add", "dev", "lo", "root", "netem", "delay", "1ms"]
    return subprocess.run(probe, capture_output=True, check=False).returncode == 0


def ideal_s(size: int, rate_bps: float) -> float:
    return 8 * size * FRAMING / rate_bps


def test_the_backend_is_netem_where_the_kernel_has_it(link: Link) -> None:
    assert link.backend == ("netem" if has_netem() else "tbf")
    assert sum(qdisc["kind"] == link.backend for qdisc in link.qdiscs()) == 2


@pytest.mark.parametrize(("down_bps", "up_bps"), [(20e6, 5e6), (5e6, 20e6)])
def test_each_direction_takes_as_long_as_its_rate_says(
    link: Link, down_bps: float, up_bps: float
) -> None:
    assert link.shape({"rate_bps": down_bps}, {"rate_bps": up_bps}) == pytest.approx(
        {"down_bps": down_bps, "up_bps": up_bps}, rel=1e-3
    )
    down_s, up_s = link.median_s(64 * KIB, 64 * KIB)
    assert down_s == pytest.approx(ideal_s(64 * KIB, down_bps), rel=0.2, abs=2e-3)
    assert up_s == pytest.approx(ideal_s(64 * KIB, up_bps), rel=0.2, abs=2e-3)


def test_a_single_embedding_is_not_swallowed_by_a_token_bucket(link: Link) -> None:
    link.shape({"rate_bps": 10e6}, {"rate_bps": 10e6})
    for measured_s in link.median_s(8 * KIB, 8 * KIB):
        assert measured_s > 0.6 * ideal_s(8 * KIB, 10e6)


def test_a_rate_that_is_taken_away_is_gone(link: Link) -> None:
    link.shape({"rate_bps": 1e6}, {"rate_bps": 1e6})
    slow = link.median_s(8 * KIB, 8 * KIB, n=3)
    assert link.shape() == {"down_bps": None, "up_bps": None}
    fast = link.median_s(8 * KIB, 8 * KIB, n=3)
    assert max(fast) < min(slow) / 5


def test_changes_follow_each_other_without_losing_a_byte(link: Link) -> None:
    for step in range(50):
        rate = 5e6 if step % 2 else 50e6
        assert link.shape({"rate_bps": rate}, {"rate_bps": rate})["down_bps"] == pytest.approx(rate)
        link.times_s(16 * KIB, 16 * KIB)  # returns only when every byte has arrived


def test_delay_and_jitter_belong_to_netem(link: Link) -> None:
    delayed = {"rate_bps": 50e6, "delay_s": 0.02, "jitter_s": 0.0}
    link.shape(delayed, {"rate_bps": 50e6})
    down_s, up_s = link.median_s(1 * KIB, 1 * KIB)
    expected_s = 0.02 if link.backend == "netem" else 0.0
    assert down_s == pytest.approx(expected_s, abs=5e-3)
    assert up_s == pytest.approx(0.0, abs=5e-3)
    link.shape({"rate_bps": 50e6}, {"rate_bps": 50e6})
    down_s, _ = link.median_s(1 * KIB, 1 * KIB)
    assert down_s == pytest.approx(0.0, abs=5e-3)


def test_every_field_is_set_anew_at_each_change(link: Link) -> None:
    full = {"rate_bps": 30e6, "delay_s": 0.004, "jitter_s": 0.001, "loss_p": 0.02, "loss_r": 0.5}
    link.shape(full, full)
    link.shape({"rate_bps": 30e6}, {"rate_bps": 30e6})
    roots = [qdisc["options"] for qdisc in link.qdiscs() if qdisc.get("handle") == "1:"]
    assert len(roots) == 2
    for options in roots:
        assert "delay" not in options or options["delay"]["delay"] == 0
        loss = options.get("loss-gemodel", {"p": 0})
        assert loss["p"] == 0
