"""Recorded traces: parsing, errors, and the resulting rates."""

import gzip
import itertools
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.errors import InputError
from orchestrator.files import text_file
from orchestrator.radio import link_trace

TEXT = "time_s,down_bps,up_bps\n0,20e6,5e6\n0.1,0,4e6\n0.3,10e6,3e6\n"
S = 1_000_000_000  # ns


def refusal(call: Callable[[], object]) -> str:
    with pytest.raises(InputError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 300
    return message


def test_a_line_holds_until_the_next_and_the_trace_repeats() -> None:
    trace = link_trace.parse(TEXT, "t.csv")
    assert trace.length_ns == S // 2  # the last line holds for 0.2 s, as the line before
    for cycle in (0, 1, 1_000_000_007):
        begin = cycle * trace.length_ns
        assert trace.down.mean_bps(begin, begin + S // 10) == 20e6
        assert trace.down.mean_bps(begin + S // 10, begin + 3 * S // 10) == 0
        assert trace.up.mean_bps(begin + 4 * S // 10, begin + 6 * S // 10) == 4e6
    assert trace.down.mean_bps(0, S // 2) == trace.down.mean_bps(0, 50 * S) == 8e6


rates = st.floats(0, 1e9)


@given(
    st.lists(st.tuples(st.integers(S // 10, 3 * S), rates), min_size=2, max_size=20),
    st.integers(0, 100 * S),
    st.integers(S // 100, 20 * S),
)
def test_the_mean_counts_the_bits_of_each_line(
    lines: list[tuple[int, float]], begin: int, duration: int
) -> None:
    edges = tuple(itertools.accumulate((length for length, _ in lines), initial=0))
    values = tuple(rate for _, rate in lines)
    expected = 0.0
    for cycle in range(begin // edges[-1], (begin + duration) // edges[-1] + 1):
        for rate, (first, last) in zip(values, itertools.pairwise(edges), strict=True):
            start, end = cycle * edges[-1] + first, cycle * edges[-1] + last
            overlap = min(end, begin + duration) - max(start, begin)
            expected += rate * max(0, overlap) / duration
    mean = link_trace.Series.of(edges, values).mean_bps(begin, begin + duration)
    assert mean == pytest.approx(expected, abs=1, rel=1e-9)


@given(st.lists(st.tuples(rates, rates), min_size=2, max_size=20), st.integers(1, 5000))
def test_a_rendered_trace_parses_to_the_same_rates(
    pairs: list[tuple[float, float]], step_ms: int
) -> None:
    downs, ups = zip(*pairs, strict=True)
    edges_s = [n * step_ms / 1000 for n in range(len(pairs) + 1)]
    trace = link_trace.parse(link_trace.render(edges_s, downs, ups), "t.csv")
    assert trace.length_ns == len(pairs) * step_ms * 1_000_000
    assert trace.down.rates_bps == pytest.approx(downs, rel=1e-9)
    assert trace.up.rates_bps == pytest.approx(ups, rel=1e-9)


@pytest.mark.parametrize(
    ("old", "new"), [("\n", "\r\n"), (",", ", "), (",", " ,\t"), ("3e6\n", "3e6\n\n \r\n")]
)
def test_line_ends_spaces_and_trailing_blank_lines_are_ignored(old: str, new: str) -> None:
    trace = link_trace.parse(TEXT.replace(old, new), "t.csv")
    assert (trace.down, trace.up) == (
        link_trace.parse(TEXT, "t.csv").down,
        link_trace.parse(TEXT, "").up,
    )


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (TEXT, "", "t.csv: is empty; allowed: a line time_s,down_bps,up_bps, and at least 2 more"),
        ("time_s,down_bps,up_bps\n", "", "t.csv, line 1: is '0,20e6,5e6'; allowed: time_s,down_"),
        ("up_bps", "up_mbps", "t.csv, line 1: is 'time_s,down_bps,up_mbps'; allowed: time_s,do"),
        ("0.1,0,4e6\n0.3,10e6,3e6\n", "", "t.csv: has 1 lines after the first; allowed: at least"),
        ("0.1,0,4e6", "0.1,0", "t.csv, line 3: is '0.1,0'; allowed: three numbers, time_s,down_b"),
        ("0.1,0,4e6", "0.1;0;4e6", "t.csv, line 3: is '0.1;0;4e6'; allowed: three numbers"),
        ("0.1,0,4e6", "", "t.csv, line 3: is ''; allowed: three numbers"),
        ("0.1,0,4e6", "0.1,0,4e6,1", "t.csv, line 3: is '0.1,0,4e6,1'; allowed: three numbers"),
        ("0.1,0,4e6", "0.1,fast,4e6", "t.csv, line 3: down_bps is 'fast'; allowed: a plain numb"),
        ("0.1,0,4e6", "0.1,0,nan", "t.csv, line 3: up_bps is 'nan'; allowed: a plain number in b"),
        ("0.1,0,4e6", "0.1,0,4_0", "t.csv, line 3: up_bps is '4_0'; allowed: a plain number in "),
        ("0.1,0,4e6", "0.1,0,4 e6", "t.csv, line 3: up_bps is '4 e6'; allowed: a plain number "),
        ("0.1,0,4e6", "0.1,0,٤", "t.csv, line 3: up_bps is '٤'; allowed: a plain number in bit/s"),
        ("0.1,0,4e6", "0.1,-1,4e6", "t.csv, line 3: down_bps is '-1'; allowed: a plain number in"),
        ("0.1,0,4e6", "0.1,0,1e13", "up_bps is '1e13'; allowed: a plain number in bit/s, from 0 "),
        ("0.1,0,4e6", "0.1,0,1e999", "up_bps is '1e999'; allowed: a plain number in bit/s, fro"),
        ("0.1,0,4e6", "0.3,0,4e6", "t.csv, line 4: time_s is '0.3'; allowed: more than the line"),
        ("0.3,10e6", "0.05,10e6", "line 4: time_s is '0.05'; allowed: more than the line before"),
        ("0.3,10e6", "-3,10e6", "line 4: time_s is '-3'; allowed: a plain number in s, from 0 to"),
        ("\n0,20", "\n0.01,20", "t.csv, line 2: time_s is '0.01'; allowed: 0, the first line's t"),
    ],
)
def test_a_fault_is_one_line_with_file_line_field_and_value(
    old: str, new: str, expected: str
) -> None:
    assert old in TEXT
    assert expected in refusal(lambda: link_trace.parse(TEXT.replace(old, new, 1), "t.csv"))


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=60))
def test_any_text_is_parsed_or_refused_in_one_line(text: str) -> None:
    for whole in (text, TEXT + text, TEXT.replace("20e6", text)):
        try:
            link_trace.parse(whole, "t.csv")
        except InputError:
            assert refusal(lambda whole=whole: link_trace.parse(whole, "t.csv"))  # type: ignore[misc]


def test_a_file_of_100_mb_is_refused_without_being_read(tmp_path: Path) -> None:
    huge = tmp_path / "huge.csv"
    with huge.open("wb") as file:
        file.truncate(100 << 20)
    tracemalloc.start()
    try:
        message = refusal(lambda: text_file.read(huge, link_trace.MAX_BYTES))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert message == f"{huge}: larger than the 4194304 bytes allowed"
    assert peak < 10 << 20


def test_a_file_that_is_not_utf_8_text_is_refused(tmp_path: Path) -> None:
    binary = tmp_path / "binary"
    binary.write_bytes(b"\xff\xff")
    assert refusal(lambda: text_file.read(binary, 10)) == f"{binary}: not a text in UTF-8"
    for order in ("utf-16", "utf-16-be"):
        binary.write_bytes(("\ufeff" * (order == "utf-16-be") + TEXT).encode(order))
        message = refusal(lambda: text_file.read(binary, 999))
        assert message == f"{binary}: a text in UTF-16; allowed: UTF-8"
    assert refusal(lambda: text_file.read(tmp_path, 10)) == f"{tmp_path}: Is a directory"
    missing = tmp_path / "missing"
    assert refusal(lambda: text_file.read(missing, 10)).endswith("No such file or directory")
    # A character of two bytes at the limit is not a fault.
    (tmp_path / "full").write_text("äöü")
    assert text_file.read(tmp_path / "full", 6) == "äöü"
    assert "larger than the 5 bytes" in refusal(lambda: text_file.read(tmp_path / "full", 5))


def test_a_text_is_decompressed_under_any_name_and_has_no_byte_order_mark(
    tmp_path: Path,
) -> None:
    file = tmp_path / "blob"
    for mark in ("", "\ufeff"):
        for pack in (bytes, gzip.compress):
            file.write_bytes(pack((mark + TEXT).encode()))
            assert text_file.read(file, 100) == TEXT
    (tmp_path / "not.gz").write_text(TEXT)
    assert text_file.read(tmp_path / "not.gz", 100) == TEXT
    file.write_bytes(gzip.compress(TEXT.encode())[:-9])
    assert refusal(lambda: text_file.read(file, 100)).startswith(f"{file}: not a whole gzip file: ")


def test_decompression_stops_at_the_limit(tmp_path: Path) -> None:
    bomb = tmp_path / "bomb"
    bomb.write_bytes(gzip.compress(bytes(200 << 20), compresslevel=1))
    tracemalloc.start()
    try:
        message = refusal(lambda: text_file.read(bomb, link_trace.MAX_BYTES))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert message == f"{bomb}: larger than the 4194304 bytes allowed"
    assert peak < 20 << 20


def test_a_tilde_is_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert text_file.user_path("~/x") == tmp_path / "x"
    assert text_file.user_path("a/~/x") == Path("a/~/x")
    assert text_file.user_path("~no-such-user/x") == Path("~no-such-user/x")
