"""DeviceReports of devices: what is accepted as one."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.control.device_reports import MAX_REPORT_BYTES, decode_report
from tests.harness.control_plane import QUEUE, report


@given(st.binary(max_size=300))
def test_noise_is_no_report(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        decode_report(data)


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
    assert decode_report(report()).device == 0
    with pytest.raises(ValueError, match=r"."):
        decode_report(report(**fields))


def test_an_oversized_report_is_refused_unread() -> None:
    with pytest.raises(ValueError, match="at most 4096"):
        decode_report(b"\xc1" * (MAX_REPORT_BYTES + 1))
