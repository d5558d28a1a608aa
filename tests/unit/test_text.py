"""Streaming text: nothing is taken back, and a stop string never shows."""

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from services.bs.text import TextStream


def decode(ids: Sequence[int]) -> str:
    return bytes(ids).decode(errors="replace")


def stream(data: bytes, stop: Sequence[str] = ()) -> list[str]:
    text = TextStream(decode, stop)
    pieces = []
    for byte in data:
        pieces.append(text.add(byte))
        if text.stopped:
            break
    return [*pieces, text.rest()]


@given(st.text(min_size=1), st.lists(st.text(min_size=1, max_size=4), max_size=4))
def test_the_pieces_are_the_text_up_to_the_first_stop_string(whole: str, stop: list[str]) -> None:
    ends = [at for at in (whole.find(s) for s in stop) if at >= 0]
    assert "".join(stream(whole.encode(), stop)) == whole[: min(ends, default=None)]


def test_half_a_character_is_held_back() -> None:
    assert stream("é".encode()) == ["", "é", ""]


def test_a_possible_beginning_of_a_stop_string_is_held_back() -> None:
    assert stream(b"a##b", ["##!"]) == ["a", "", "", "##b", ""]


def test_what_no_stop_string_begins_with_is_given_at_once() -> None:
    assert stream(b" 42\n", ["\n\n", "Question:"]) == [" ", "4", "2", "", "\n"]
