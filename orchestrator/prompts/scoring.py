"""Scoring of completions, and of the likelihoods of choices."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Protocol

WORKING_END = "####"

# Hyphen-minus, minus, non-breaking hyphen, en dash, and the small and the full-width hyphen-minus.
_MINUS = "-\u2212\u2011\u2013\ufe63\uff0d"
# Thousands separators: a comma, LaTeX's {,} and \\, and plain, no-break, thin and narrow no-break
# spaces.
_SEPARATOR = r"(?:,|\{,\}|\\,|[ \u00a0\u2009\u202f])"
# A sign, a dollar, digits with or without thousands separators, an exponent. The minus of 16-3 is
# not a sign of 3.
_NUMBER = re.compile(
    rf"(?:(?<![\w)])[{_MINUS}+]\$?|\$[{_MINUS}+]?)?"
    rf"(?:(?:[0-9]{{1,3}}(?P<separator>{_SEPARATOR})[0-9]{{3}}(?:(?P=separator)[0-9]{{3}})*(?![0-9])"
    r"|[0-9]+)(?:\.[0-9]+)?|\.[0-9]+)"
    rf"(?:[eE][{_MINUS}+]?[0-9]{{1,3}}(?!\w))?"
)


@dataclass(frozen=True)
class Score:
    """The score of a reply to a prompt.

    Attributes:
        answer: the scored text.
        expected: the right one.
        value: 0 or 1; None: not scored, or not until tests have been run.
        value_norm: the same by log-likelihood per character; None: not a choice.
    """

    answer: str
    expected: str
    value: float | None
    value_norm: float | None = None


class Likelihood(Protocol):
    """The likelihood of a choice after its prompt."""

    @property
    def log_likelihood(self) -> float:
        """Sum over the choice's tokens [nats]."""

    @property
    def characters(self) -> int:
        """Length of the choice, at least 1."""


def extract_answer(completion: str) -> str:
    """Return the text after the last `####`, or else the whole completion, stripped."""
    return completion.rpartition(WORKING_END)[2].strip()


def exact_match(completion: str, expected: str) -> float:
    """Return 1.0 if the completion's answer equals the expected one by character, else 0.0."""
    return float(extract_answer(completion) == expected.strip())


def read_number(text: str) -> str | None:
    """Return a text that is a number in its plain form; None for any other text.

    `$1,234.50` becomes `1234.5`, `−1.5e3` becomes `-1500`, and `12 000` becomes `12000`.
    """
    whole = _NUMBER.fullmatch(text.strip())
    return _plain(whole[0]) if whole else None


def final_number(completion: str) -> str | None:
    """Return the number after the last `####`, else the last number, in its plain form."""
    _, mark, rest = completion.rpartition(WORKING_END)
    marked = _NUMBER.match(rest.lstrip()) if mark else None
    if marked:
        return _plain(marked[0])
    found = [match[0] for match in _NUMBER.finditer(completion)]
    return _plain(found[-1]) if found else None


def number_match(completion: str, expected: str) -> float:
    """Return 1.0 if the completion's final number equals the expected one, else 0.0."""
    found = final_number(completion)
    return float(found is not None and found == read_number(expected))


def likeliest(log_likelihoods: Sequence[float], lengths: Sequence[int] | None = None) -> int:
    """Return the index of the likeliest choice, the first among equals.

    Args:
        log_likelihoods: one per choice, in nats.
        lengths: divisors of the log-likelihoods [characters, at least 1 each], or None.
    """
    values = list(log_likelihoods)
    if lengths is not None:
        values = [value / length for value, length in zip(values, lengths, strict=True)]
    return values.index(max(values))


def _plain(number: str) -> str:
    """Return a number without dollar, separators and superfluous zeros; exact for any length."""
    ascii_only = re.sub(f"[{_MINUS}]", "-", number)
    value = Decimal(re.sub(r"[^-0-9.eE]", "", ascii_only))
    whole, _, fraction = f"{value:f}".partition(".")
    plain = f"{whole}.{fraction}".rstrip("0").rstrip(".")
    return "0" if value == 0 else plain
