"""Streaming text: nothing is taken back, and a stop string never shows."""

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from services.bs.text.detokenizer import IncrementalDetokenizer


def decode(ids: Sequence[int]) -> str:
    return bytes(ids).decode(errors="replace")


def stream(data: bytes, stop: Sequence[str] = (), min_tokens: int = 0) -> list[str]:
    text = IncrementalDetokenizer(decode, stop, min_tokens)
    pieces = []
    for byte in data:
        pieces.append(text.add(byte))
        if text.stopped:
            break
    return [*pieces, text.rest()]


def cut(whole: str, stop: Sequence[str], first: int = 0) -> str:
    """Return the text before the stop string that ends first; none begins before `first`."""
    for end in range(len(whole) + 1):
        begins = [at for s in stop if (at := whole.find(s, first, end)) >= 0]
        if begins:
            return whole[: min(begins)]
    return whole


@given(st.text(min_size=1), st.lists(st.text(min_size=1, max_size=4), max_size=4))
def test_the_pieces_are_the_text_up_to_the_first_stop_string(whole: str, stop: list[str]) -> None:
    assert "".join(stream(whole.encode(), stop)) == cut(whole, stop)


FEW = st.text("ab", min_size=1, max_size=3)


@given(st.text("ab", max_size=12), st.lists(FEW, max_size=3), st.integers(0, 12))
def test_a_stop_string_that_begins_in_the_first_tokens_is_text(
    whole: str, stop: list[str], min_tokens: int
) -> None:
    pieces = stream(whole.encode(), stop, min_tokens)
    assert "".join(pieces) == cut(whole, stop, min_tokens)


def test_half_a_character_is_held_back() -> None:
    assert stream("é".encode()) == ["", "é", ""]


def test_a_possible_beginning_of_a_stop_string_is_held_back() -> None:
    assert stream(b"a##b", ["##!"]) == ["a", "", "", "##b", ""]


def test_text_that_begins_no_stop_string_is_returned_at_once() -> None:
    assert stream(b" 42\n", ["\n\n", "Question:"]) == [" ", "4", "2", "", "\n"]
