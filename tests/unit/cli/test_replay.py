"""What `wdmoe replay` prints before it sends anything."""

import json
from pathlib import Path

import pytest

from orchestrator.cli import common
from tests.harness.command import Wdmoe


def items(folder: Path, count: int) -> str:
    file = folder / "x.jsonl"
    lines = (
        {"id": str(n), "prompt": "1 + 1 =", "answer": "2", "max_tokens": 4, "stop": []}
        for n in range(count)
    )
    file.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return f"jsonl:{file}"


def test_the_length_of_a_schedule_is_printed_before_it_starts(wdmoe: Wdmoe, tmp_path: Path) -> None:
    trace = tmp_path / "mooncake.jsonl"
    times_ms = 0, 850, 1900, 1900, 4200
    trace.write_text("".join(f'{{"timestamp": {at}, "input_length": 1}}\n' for at in times_ms))
    result = wdmoe("replay", items(tmp_path, 5), "--arrivals", f"trace:{trace}", "--json")
    first, second = result.err.splitlines()
    assert first == "5 requests start over 4.2 s, 0.952 a second on average"
    assert second.startswith("wdmoe: the base station does not answer")
    assert not result.out
    seconds = tmp_path / "seconds"
    seconds.write_text("0\n850\n1900\n1900\n420000\n")
    result = wdmoe("replay", items(tmp_path, 5), "--arrivals", f"trace:{seconds}")
    assert result.err.startswith("5 requests start over 4 d 20 h, ")
    assert "start over" not in wdmoe("replay", items(tmp_path, 5)).err


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0, "0 s"),
        (0.25, "0.25 s"),
        (99.9, "99.9 s"),
        (100, "2 min"),
        (3599, "1 h 0 min"),
        (4320, "1 h 12 min"),
        (172_740, "47 h 59 min"),
        (420_000, "4 d 20 h"),
    ],
)
def test_a_duration_is_printed_in_short_form(seconds: float, shown: str) -> None:
    assert common.duration(seconds) == shown
