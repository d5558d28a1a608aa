"""How a completion is scored."""

from __future__ import annotations

WORKING_END = "####"


def extract_answer(completion: str) -> str:
    """What is scored: all that follows the last `####`, or all of it, without outer white space."""
    return completion.rpartition(WORKING_END)[2].strip()


def exact_match(completion: str, expected: str) -> float:
    """1.0 if the completion's answer is the expected one, character by character, else 0.0."""
    return float(extract_answer(completion) == expected.strip())
