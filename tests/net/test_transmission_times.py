"""Transmission times of messages on an idle link, compared with their bits over the rate.

Prints the table of results: `pytest -s tests/net/test_transmission_times.py`.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

from services.device.link.tbf import bucket_bytes
from tests.net.conftest import WAYS, Link, Way

KIB = 1024
SIZES = (KIB, 8 * KIB, 64 * KIB)
RATES_BPS = (5e6, 20e6, 50e6, 100e6)
N = 41
# Ethernet, IP and TCP headers of a segment, and the data of a full segment.
HEADERS_BYTES, SEGMENT_BYTES = 66, 1448
# Bytes that a message carries beside its data: conftest.Link.times_s.
FRAMING_BYTES = {"down": 8, "up": 16}


@dataclass(frozen=True)
class Row:
    """Transmission times of one size at one rate in one direction [s]."""

    size: int
    rate_bps: float
    way: Way
    p10_s: float
    median_s: float
    p90_s: float

    @property
    def wire_bytes(self) -> int:
        data = self.size + FRAMING_BYTES[self.way]
        return data + HEADERS_BYTES * math.ceil(data / SEGMENT_BYTES)

    @property
    def ideal_s(self) -> float:
        return 8 * self.wire_bytes / self.rate_bps

    def __str__(self) -> str:
        times_ms = (1e3 * t for t in (self.ideal_s, self.p10_s, self.median_s, self.p90_s))
        return (
            f"{self.size // KIB:3} KiB {self.rate_bps / 1e6:7.0f} Mbit/s  {self.way:4} "
            + " ".join(f"{time_ms:8.2f}" for time_ms in times_ms)
            + f" {self.median_s / self.ideal_s - 1:+8.1%}"
        )


def measure(link: Link, size: int) -> Iterator[tuple[float, float, float]]:
    """Yield p10, median and p90 [s] of N messages, first down, then up."""
    for times_s in zip(*(link.times_s(size, size) for _ in range(N)), strict=True):
        ordered_s = sorted(times_s)
        yield ordered_s[N // 10], ordered_s[N // 2], ordered_s[N - 1 - N // 10]


def test_a_message_takes_its_bits_over_the_rate(link: Link) -> None:
    print(f"\n{link.backend}, n = {N} [ms]           ideal      p10   median      p90    error")
    # The time of a message without a rate; larger messages overlap it with their transmission.
    costs_s = [p10_s for p10_s, _, _ in measure(link, KIB)]
    rows = []
    for size, rate_bps in product(SIZES, RATES_BPS):
        link.shape_both(rate_bps=rate_bps)
        for way, cost_s, measured_s in zip(WAYS, costs_s, measure(link, size), strict=True):
            rows.append(Row(size, rate_bps, way, *(time_s - cost_s for time_s in measured_s)))
            print(rows[-1])
    for row in rows:
        if row.size == KIB:
            continue  # smaller than a bucket
        expected_s = row.ideal_s
        if link.backend == "tbf":
            expected_s -= 8 * bucket_bytes(row.rate_bps) / row.rate_bps
        # p10, because a busy host delays messages; the host's cost per packet adds to it
        assert 0.9 * expected_s - 0.2e-3 < row.p10_s < 1.25 * expected_s + 1e-3, row
