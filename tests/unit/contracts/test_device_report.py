"""The reports of devices: which ones are accepted."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.contracts.device_report import MAX_BYTES, decode
from tests.harness.control_plane import QUEUE, report


@given(st.binary(max_size=300))
def test_noise_is_no_report(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        decode(data)


@pytest.mark.parametrize(
    "fields",
    [
        {"v": 1},
        {"device": -1},
        {"device": True},
        {"epoch": 1 << 60},
        {"interval": "1"},
        {"applied_at_s": float("nan")},
        {"error": "x" * 501},
        {"error": ["x"]},
        {"more": 1},
        {"up": {**QUEUE, "packets": -1}},
        {"down": None},
    ],
)
def test_a_report_out_of_range_is_refused(fields: dict[str, Any]) -> None:
    assert decode(report()).device == 0
    with pytest.raises(ValueError, match=r"."):
        decode(report(**fields))


def test_an_oversized_report_is_refused_unread() -> None:
    with pytest.raises(ValueError, match="at most 4096"):
        decode(b"\xc1" * (MAX_BYTES + 1))
