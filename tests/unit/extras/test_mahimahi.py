"""Packet-delivery files of Mahimahi, and the traces that they are converted to."""

import gzip
import tracemalloc
from bisect import bisect_right
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from orchestrator.errors import InputError
from orchestrator.extras import mahimahi
from orchestrator.radio import link_trace
from orchestrator.radio.link_trace import Series, Trace
from tests.harness.command import Wdmoe

MS = 1_000_000  # ns
PACKET = 1500 * 8


def write(path: Path, times_ms: Iterable[int]) -> Path:
    path.write_text("".join(f"{time}\n" for time in times_ms))
    return path


def converted(down: Path, up: Path, step_ms: int) -> tuple[Trace, list[str]]:
    text, warnings = mahimahi.convert(down, up, step_ms)
    assert len(text) <= link_trace.MAX_BYTES
    return link_trace.parse(text, "t.csv"), warnings


def mean_bps(series: Series) -> float:
    return series.bits[-1] / series.edges_ns[-1] * 1e9


def slow(packets: int) -> range:
    return range(208, 208 * packets + 1, 208)


@pytest.mark.parametrize("step_ms", [1, 7, 100, 208, 1000])
@pytest.mark.parametrize(
    ("times_ms", "rate_bps"),
    [
        ([1], 12e6),
        ([1, 1, 1, 1, 1], 60e6),
        ([5, 5, 5], 7.2e6),
        ([208], PACKET / 0.208),
        (slow(30), PACKET / 0.208),
        ([2500, 5000], PACKET / 2.5),  # slower than the minimum of links
    ],
)
def test_a_constant_link_stays_constant_with_any_other_direction(
    tmp_path: Path, times_ms: Iterable[int], rate_bps: float, step_ms: int
) -> None:
    constant = write(tmp_path / "constant", times_ms)
    for other in (constant, write(tmp_path / "steady", range(1, 10_001))):
        trace, _ = converted(constant, other, step_ms)
        assert trace.down.rates_bps == pytest.approx([rate_bps] * len(trace.down.rates_bps))


files_ms = st.lists(st.integers(0, 3000), min_size=1, max_size=60).map(
    lambda times: sorted([*times, max(times) + 1])
)


@given(files_ms, files_ms, st.integers(1, 2000))
@example([0, 0, 1], [2999, 3001], 1)  # 3001 rounds of one file per round of the other
@example([0, 0, 3000], [2999, 3001], 1)  # the rounds of the two files never end together
def test_each_direction_keeps_the_mean_of_its_file(
    tmp_path_factory: pytest.TempPathFactory, down_ms: list[int], up_ms: list[int], step_ms: int
) -> None:
    folder = tmp_path_factory.getbasetemp()
    down, up = write(folder / "down", down_ms), write(folder / "up", up_ms)
    trace, _ = converted(down, up, step_ms)
    for series, times in ((trace.down, down_ms), (trace.up, up_ms)):
        assert mean_bps(series) == pytest.approx(len(times) * PACKET * 1000 / times[-1], rel=1e-6)


@given(files_ms, st.integers(1, 2000))
def test_a_file_repeats_after_its_own_end_at_any_step(
    tmp_path_factory: pytest.TempPathFactory, times_ms: list[int], step_ms: int
) -> None:
    file = write(tmp_path_factory.getbasetemp() / "file", times_ms)
    trace, warnings = converted(file, file, step_ms)
    assert trace.length_ns == times_ms[-1] * MS
    assert trace.down == trace.up
    assert not any("multiplied" in warning for warning in warnings)
    # A packet is carried by its time at the latest, and not before the previous packets.
    times = [time for time in times_ms if time] + [times_ms[-1]] * times_ms.count(0)
    for edge, bits in zip(trace.down.edges_ns, trace.down.bits, strict=True):
        carried = bits / PACKET
        whole = bisect_right(times, edge / MS)
        following = times.count(times[whole]) if whole < len(times) else 0
        assert whole - 1e-6 <= carried <= whole + following + 1e-6


def test_the_shorter_file_continues_where_the_longer_one_repeats(tmp_path: Path) -> None:
    long = write(tmp_path / "long", range(1, 301))
    short = write(tmp_path / "short", [*range(1, 101), 200])
    trace, warnings = converted(long, short, 100)
    assert trace.length_ns == 600 * MS
    assert not warnings
    assert trace.up.rates_bps == pytest.approx([12e6, 0.12e6] * 3)


def test_rounds_that_never_end_together_keep_their_mean_with_a_warning(tmp_path: Path) -> None:
    long = write(tmp_path / "long", range(1, 99_992))
    short = write(tmp_path / "short", [*range(1, 100), *range(100, 61_001, 500), 61_001])
    trace, (warning,) = converted(long, short, 1000)
    assert trace.length_ns > long.stat().st_size
    assert "rounds fit into" in warning
    assert "its rates are multiplied by 1.00" in warning or "multiplied by 0.99" in warning
    packets = len(short.read_text().splitlines())
    assert mean_bps(trace.up) == pytest.approx(packets * PACKET / 61.001)


def test_gaps_of_a_slow_link_are_not_outages(tmp_path: Path) -> None:
    gap = [*range(1, 1001), *[4000] * 5, *range(4001, 5001)]
    file = write(tmp_path / "file", gap)
    trace, (warning, _) = converted(file, file, 100)
    assert all(rate == pytest.approx(4e3) for rate in trace.down.rates_bps[10:39])
    assert trace.down.rates_bps[40] == pytest.approx(12e6)
    assert warning == (
        f"{file}: 29 of 50 steps of 0.1 s are below 10 kbit/s, a device is out of reach there; "
        "with steps of 3.2 s there are none"
    )
    _, warnings = converted(write(tmp_path / "slow", slow(9)), write(tmp_path / "s", slow(9)), 100)
    assert not warnings


def test_a_file_of_any_size_is_read_as_a_stream(tmp_path: Path) -> None:
    per_ms, length_ms = 20, 60_000
    file = tmp_path / "fast"
    with file.open("w") as lines:
        for time in range(1, length_ms + 1):
            lines.write(f"{time}\n" * per_ms)
    size = file.stat().st_size
    assert size > link_trace.MAX_BYTES
    packed = tmp_path / "fast.gz"
    packed.write_bytes(gzip.compress(file.read_bytes(), compresslevel=1))
    for path in (file, packed):
        tracemalloc.start()
        trace, _ = converted(path, path, 100)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert trace.down.rates_bps == pytest.approx([240e6] * 600)
        assert peak < 16 << 20
        assert peak < 2 * size


@pytest.mark.parametrize(
    "data",
    [b"1\n2\n3\n", b"1\n2\n3", b"\xef\xbb\xbf1\r\n2\r\n3\r\n", b"1 \n 2\n3\n\n \r\n\n"],
)
def test_byte_order_marks_line_ends_and_trailing_blank_lines_are_ignored(
    tmp_path: Path, data: bytes
) -> None:
    file = tmp_path / "file"
    file.write_bytes(data)
    trace, _ = converted(file, file, 1)
    assert trace.length_ns == 3 * MS
    assert trace.down.rates_bps == pytest.approx([12e6] * 3)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ": is empty; allowed: a line for each packet delivered"),
        ("\n \n", ": is empty; allowed: a line for each packet delivered"),
        ("1\n\n2\n", ", line 2: is ''; allowed: a time in whole milliseconds, from 0 to 999999999"),
        ("1\n2.5\n", ", line 2: is '2.5'; allowed: a time in whole milliseconds"),
        ("-1\n", ", line 1: is '-1'; allowed: a time in whole milliseconds"),
        ("9999999999\n", ", line 1: is '9999999999'; allowed: a time in whole milliseconds"),
        ("5\n4\n", ", line 2: is 4; allowed: no less than the line before's 5"),
        ("0\n0\n", ": lasts 0 ms; allowed: a last line above 0"),
        ("1\n900000000\n", ": gives 9000000 steps of 100 ms; allowed: at most 100000, with a lo"),
        ("1" * (3 << 20), f", line 1: is '{'1' * 40}'; allowed: a time in whole milliseconds"),
        ("1\n" * 600_000 + "x\n", ", line 600001: is 'x'; allowed: a time in whole milliseconds"),
        ("2\n" * 600_000 + "1\n", ", line 600001: is 1; allowed: no less than the line before's 2"),
        ("1\n" * 600_000 + "\n" * 600_000 + "1\n", ", line 600001: is ''; allowed: a time in who"),
        ("1\n" * 9_000_000 + "2\n", ": carries 1.08e+14 bit/s at its fastest; allowed: at most "),
    ],
)
def test_a_fault_is_reported_in_one_line(tmp_path: Path, text: str, expected: str) -> None:
    path = tmp_path / "down"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        mahimahi.convert(path, path, 100)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(str(path))
    assert expected in message


def test_a_folder_is_refused(tmp_path: Path, wdmoe: Wdmoe) -> None:
    arguments = "--out", str(tmp_path / "o.csv")
    result = wdmoe("profile", "import-mahimahi", str(tmp_path), str(tmp_path), *arguments)
    assert result.code == 2
    assert result.err == f"wdmoe: {tmp_path}: Is a directory\n"


def test_the_command_prints_warnings_and_its_result(tmp_path: Path, wdmoe: Wdmoe) -> None:
    file = write(tmp_path / "file", [1, 2, 5000, 5000])
    out = tmp_path / "o.csv"
    result = wdmoe("profile", "import-mahimahi", str(file), str(file), "--out", str(out))
    assert result.code == 0
    assert result.out == f"{out}: 5 s, on average 9.6 kbit/s down and 9.6 kbit/s up\n"
    first, _ = result.err.splitlines()
    assert first.startswith(f"Warning: {file}: 48 of 50 steps of 0.1 s are below 10 kbit/s")
    output = wdmoe.json("profile", "import-mahimahi", str(file), str(file), "--out", str(out))
    assert len(output["warnings"]) == 2
