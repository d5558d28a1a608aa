from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.prompts.scoring import (
    exact_match,
    extract_answer,
    final_number,
    likeliest,
    number_match,
    read_number,
)


@pytest.mark.parametrize(
    ("completion", "answer"),
    [
        (" 12\n", "12"),
        (" 21 #### 12", "12"),
        ("1 #### 2 #### 3 ", "3"),
        ("####", ""),
        ("", ""),
        ("##### 4", "4"),
    ],
)
def test_the_answer_is_extracted_from_a_completion(completion: str, answer: str) -> None:
    assert extract_answer(completion) == answer


def test_exact_match_compares_the_answer_by_character() -> None:
    assert exact_match(" 21 #### 12\n", "12") == 1.0
    assert exact_match(" 12 #### 21", "12") == 0.0
    assert exact_match("Yes", "yes") == 0.0


@given(st.text(), st.text(st.characters(exclude_characters="#", exclude_categories=["Cs"])))
def test_only_the_text_after_the_working_counts(working: str, answer: str) -> None:
    assert exact_match(f"{working}####{answer}", answer) == 1.0


@pytest.mark.parametrize(
    ("completion", "number"),
    [
        ("She has 3 + 4 = 7 eggs.\n#### 7", "7"),
        ("#### 276,000", "276000"),
        ("#### $1,234.50", "1234.5"),
        ("#### -$5", "-5"),
        ("####12 or 13", "12"),
        ("#### 12 #### 13", "13"),
        ("it is 12 #### unknown", "12"),
        ("So the answer is 18.", "18"),
        ("So it is $18.00 a day", "18"),
        ("16-3 = 16-3", "3"),
        ("it fell to -3", "-3"),
        ("f(2)-3", "3"),
        ("3.5, .25", "0.25"),
        ("007", "7"),
        ("-0.0", "0"),
        ("1,2345", "2345"),
        ("50% of it", "50"),
        ("it fell to \u22123", "-3"),
        ("16\u22123 = 16\u22123", "3"),
        ("5\u201310", "10"),
        ("#### \uff0d$5", "-5"),
        ("so 1.5e3", "1500"),
        ("#### 2E-2 of it", "0.02"),
        ("1e3rd", "3"),
        ("2.0e+2", "200"),
        ("12 000", "12000"),
        ("#### 12\u00a0000 eggs", "12000"),
        ("#### 1\u202f234\u202f567.5", "1234567.5"),
        ("about 8{,}000", "8000"),
        (r"#### 8\,000", "8000"),
        ("2023 100", "100"),
        ("1,234 567", "567"),
        ("in 12 0000", "0"),
        ("+5", "5"),
        ("٣", None),
        ("none at all, $ , .", None),
        ("", None),
    ],
)
def test_the_final_number_of_a_completion_is_found(completion: str, number: str | None) -> None:
    assert final_number(completion) == number


@pytest.mark.parametrize("text", ["", "12 eggs", "1,23", "1.2.3", "--1", "1e", "e3", "¹", "1 2"])
def test_a_text_with_more_than_a_number_has_no_value(text: str) -> None:
    assert read_number(text) is None


def test_numbers_match_by_value() -> None:
    assert number_match(" 9 * 2 = 18\n#### 18.0", "18") == 1.0
    assert number_match(" #### 43500", "43,500") == 1.0
    assert number_match(" #### 18", "-18") == 0.0
    assert number_match(" no idea", "18") == 0.0


@given(st.integers(), st.text(st.characters(exclude_categories=["Cs"])))
def test_a_number_is_found_in_any_notation(number: int, working: str) -> None:
    thousands = f"{number:,}"
    for written in (
        *(str(number), thousands, f"{number}.00", f" {thousands} ", f"{number}e0"),
        *(thousands.replace(",", mark) for mark in (" ", "\u00a0", "\u202f", "{,}")),
        str(number).replace("-", "\u2212"),
    ):
        assert final_number(f"{working}\n####{written}") == str(number)
        assert read_number(written) == str(number)


@given(st.text())
def test_any_text_has_a_final_number_or_none(text: str) -> None:
    found = final_number(text)
    assert found is None or read_number(found) == found


def test_the_likeliest_choice_may_not_be_the_likeliest_per_character() -> None:
    assert likeliest([-4.0, -6.0]) == 0
    assert likeliest([-4.0, -6.0], [2, 12]) == 1
    assert likeliest([-1.0, -1.0]) == 0


choices = st.lists(
    st.tuples(st.floats(-1e4, 0), st.integers(1, 1000)), min_size=2, max_size=6, unique=True
)


@given(choices, st.randoms())
def test_the_likeliest_is_the_same_in_any_order(
    pairs: list[tuple[float, int]], random: Random
) -> None:
    best = max(value for value, _ in pairs)
    per_character = max(value / length for value, length in pairs)
    random.shuffle(pairs)
    values, lengths = [value for value, _ in pairs], [length for _, length in pairs]
    assert values[likeliest(values)] == best
    at = likeliest(values, lengths)
    assert values[at] / lengths[at] == per_character
