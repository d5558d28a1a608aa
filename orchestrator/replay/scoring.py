"""How a completion, or the likelihoods of choices, are scored."""

from __future__ import annotations

import re
from collections.abc import Sequence

WORKING_END = "####"

# A sign, a dollar, digits with or without commas by thousands. The minus of 16-3 is none of 3's.
_NUMBER = re.compile(
    r"(?:(?<![\w)])-\$?|\$-?)?"
    r"(?:(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]+)?|\.[0-9]+)"
)


def extract_answer(completion: str) -> str:
    """What is scored: all that follows the last `####`, or all of it, without outer white space."""
    return completion.rpartition(WORKING_END)[2].strip()


def exact_match(completion: str, expected: str) -> float:
    """1.0 if the completion's answer is the expected one, character by character, else 0.0."""
    return float(extract_answer(completion) == expected.strip())


def read_number(text: str) -> str | None:
    """A text that is a number and nothing else, in its plain form: `$1,234.50` is `1234.5`."""
    whole = _NUMBER.fullmatch(text.strip())
    return _plain(whole[0]) if whole else None


def final_number(completion: str) -> str | None:
    """The number behind the last `####`, else the last one there is, in its plain form."""
    _, mark, rest = completion.rpartition(WORKING_END)
    marked = _NUMBER.match(rest.lstrip()) if mark else None
    if marked:
        return _plain(marked[0])
    found = _NUMBER.findall(completion)
    return _plain(found[-1]) if found else None


def number_match(completion: str, expected: str) -> float:
    """1.0 if the completion's final number equals the one expected, else 0.0."""
    found = final_number(completion)
    return float(found is not None and found == read_number(expected))


def likeliest(log_likelihoods: Sequence[float], lengths: Sequence[int] | None = None) -> int:
    """The number of the choice that is likeliest, the first of equals.

    Args:
        log_likelihoods: one a choice, in nats.
        lengths: by which to divide them [characters, at least 1 each], or none.
    """
    values = list(log_likelihoods)
    if lengths is not None:
        values = [value / length for value, length in zip(values, lengths, strict=True)]
    return values.index(max(values))


def _plain(number: str) -> str:
    """No dollar, comma or zero that says nothing; exact, however many digits there are."""
    whole, _, fraction = re.sub(r"[^0-9.]", "", number).partition(".")
    plain = whole.lstrip("0") or "0"
    fraction = fraction.rstrip("0")
    if fraction:
        plain += f".{fraction}"
    return f"-{plain}" if "-" in number and plain != "0" else plain
