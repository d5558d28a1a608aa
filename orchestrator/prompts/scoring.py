"""How a completion, or the likelihoods of choices, are scored."""

from __future__ import annotations

import re
from collections.abc import Sequence
from decimal import Decimal

WORKING_END = "####"

# Hyphen-minus, minus, non-breaking hyphen, en dash, and the small and the full-width hyphen-minus.
_MINUS = "-\u2212\u2011\u2013\ufe63\uff0d"
# Of thousands: a comma, LaTeX's {,} and \\, and plain, no-break, thin and narrow no-break spaces.
_SEPARATOR = r"(?:,|\{,\}|\\,|[ \u00a0\u2009\u202f])"
# A sign, a dollar, digits with or without thousands set off, an exponent. The minus of 16-3 is none
# of 3's.
_NUMBER = re.compile(
    rf"(?:(?<![\w)])[{_MINUS}+]\$?|\$[{_MINUS}+]?)?"
    rf"(?:(?:[0-9]{{1,3}}(?P<separator>{_SEPARATOR})[0-9]{{3}}(?:(?P=separator)[0-9]{{3}})*(?![0-9])"
    r"|[0-9]+)(?:\.[0-9]+)?|\.[0-9]+)"
    rf"(?:[eE][{_MINUS}+]?[0-9]{{1,3}}(?!\w))?"
)


def extract_answer(completion: str) -> str:
    """What is scored: all that follows the last `####`, or all of it, without outer white space."""
    return completion.rpartition(WORKING_END)[2].strip()


def exact_match(completion: str, expected: str) -> float:
    """1.0 if the completion's answer is the expected one, character by character, else 0.0."""
    return float(extract_answer(completion) == expected.strip())


def read_number(text: str) -> str | None:
    """A text that is a number and nothing else, in its plain form: `$1,234.50` is `1234.5`.

    `−1.5e3` is `-1500`, and `12 000` is `12000`.
    """
    whole = _NUMBER.fullmatch(text.strip())
    return _plain(whole[0]) if whole else None


def final_number(completion: str) -> str | None:
    """The number behind the last `####`, else the last one there is, in its plain form."""
    _, mark, rest = completion.rpartition(WORKING_END)
    marked = _NUMBER.match(rest.lstrip()) if mark else None
    if marked:
        return _plain(marked[0])
    found = [match[0] for match in _NUMBER.finditer(completion)]
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
    """No dollar, separator or zero that says nothing; exact, however many digits there are."""
    ascii_only = re.sub(f"[{_MINUS}]", "-", number)
    value = Decimal(re.sub(r"[^-0-9.eE]", "", ascii_only))
    whole, _, fraction = f"{value:f}".partition(".")
    plain = f"{whole}.{fraction}".rstrip("0").rstrip(".")
    return "0" if value == 0 else plain
