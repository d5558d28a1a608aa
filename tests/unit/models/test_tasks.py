"""The generators give right answers, and splits and prompt sets are as documented."""

import json
import re
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.tasks import (
    FACTS,
    ITEMS_PER_SET,
    TASKS,
    Item,
    any_arithmetic,
    arithmetic,
    compare,
    draw,
    facts,
    match,
    order,
    prompt_set,
    prompt_set_text,
    reading,
    split_of,
)
from orchestrator.prompts.prompt_sets import BUNDLED_DIR

seeds = st.integers(min_value=0, max_value=2**32)


@given(seeds)
def test_arithmetic_items_are_right(seed: int) -> None:
    a, b, result = check_arithmetic(arithmetic(Random(seed)))
    assert 3 <= len(a) == len(b) <= 4
    assert len(result) >= len(a)


@given(seeds)
def test_arithmetic_is_trained_on_numbers_of_one_to_four_digits(seed: int) -> None:
    a, b, result = check_arithmetic(any_arithmetic(Random(seed)))
    assert 1 <= min(len(a), len(b)) <= max(len(a), len(b)) <= 4
    assert int(result) >= 0


def check_arithmetic(item: Item) -> tuple[str, str, str]:
    """Check a sum or difference with its working; return both numbers and the result."""
    match = re.fullmatch(r"What is (\d+) ([+-]) (\d+)\?", item.prompt)
    assert match
    a, sign, b = match.groups()
    result = int(a) + int(b) if sign == "+" else int(a) - int(b)
    assert item.answer == str(result)
    columns = item.completion.partition("####")[0].split()
    width = max(len(a), len(b))
    assert [column[0] for column in columns] == list(reversed(a.zfill(width)))
    assert [column[1] for column in columns] == list(reversed(b.zfill(width)))
    carry = 0
    for x, y, _, out, digit in map(tuple, columns):
        if sign == "+":
            assert int(x) + int(y) + carry == 10 * int(out) + int(digit)
        else:
            assert int(x) - int(y) - carry == int(digit) - 10 * int(out)
        carry = int(out)
    assert int(str(carry) + "".join(column[4] for column in reversed(columns))) == result
    return a, b, item.answer


@given(seeds)
def test_compare_items_are_right(seed: int) -> None:
    item = compare(Random(seed))
    match = re.fullmatch(r"Is (\d{3}) (greater|smaller) than (\d{3})\?", item.prompt)
    assert match
    a, b = int(match[1]), int(match[3])
    assert a != b
    assert item.answer == ("yes" if (a > b) == (match[2] == "greater") else "no")
    signs = item.completion.partition("####")[0].split()
    first = next(sign for sign in signs if sign != "=")
    assert len(signs) == 3
    assert first == (">" if a > b else "<")


@given(seeds)
def test_order_items_are_right(seed: int) -> None:
    item = order(Random(seed))
    listed = item.prompt.removesuffix(".").partition(": ")[2].split()
    assert 3 <= len(listed) <= 5
    assert len({word[0] for word in listed}) == len(listed)
    assert item.completion == " " + " ".join(sorted(listed))


@given(seeds)
def test_facts_items_are_right(seed: int) -> None:
    item = facts(Random(seed))
    listed = r"(\w+) A, (\w+) B, (\w+) C, (\w+) D"
    match = re.fullmatch(rf"(.+\?) Options: {listed}\.\nAnswer:", item.prompt)
    assert match
    truths = {
        question.format(subject): objects[subject]
        for question, objects in FACTS.values()
        for subject in objects
    }
    options = dict(zip("ABCD", match.groups()[1:], strict=True))
    assert len(set(options.values())) == 4
    assert options[item.answer] == truths[match[1]]
    assert item.completion == f" {truths[match[1]]} {item.answer} #### {item.answer}"


def test_the_facts_of_the_prompt_set_occur_in_training() -> None:
    rng = Random(0)
    taught = {draw(facts, rng, "train").prompt.partition("?")[0] for _ in range(4000)}
    questions = {str(line["prompt"]).partition("?")[0] for line in prompt_set("facts")}
    assert questions <= taught


@given(seeds)
def test_reading_items_are_right(seed: int) -> None:
    item = reading(Random(seed))
    passage, _, question = item.prompt.rpartition(". ")
    facts_by_person = {
        sentence.split()[0]: sentence.split()[1:] for sentence in passage.split(". ")
    }
    assert len(facts_by_person) == 4
    match = re.fullmatch(r"Does (\w+) (\w+) (\w+)\?", question)
    assert match
    verb, thing = facts_by_person[match[1]]
    assert verb in (f"{match[2]}s", f"{match[2]}es")
    verdict = "yes" if match[3] == thing else "no"
    assert item.completion == f" {match[1]} {verb} {thing} {match[3]} {verdict} #### {verdict}"


@given(seeds)
def test_match_items_are_right(seed: int) -> None:
    item = match(Random(seed))
    words = item.completion.split()
    triples = list(zip(words[::3], words[1::3], words[2::3], strict=True))
    pairs = item.prompt.removeprefix("Match: ").removesuffix(".").split(", ")
    assert [f"{first} {second}" for first, second, _ in triples] == pairs
    assert all((first == second) == (verdict == "yes") for first, second, verdict in triples)


@pytest.mark.parametrize("name", ["compare", "reading"])
def test_yes_and_no_are_equally_frequent(name: str) -> None:
    rng = Random(0)
    yes = sum(TASKS[name](rng).answer == "yes" for _ in range(4000))
    assert abs(yes / 4000 - 0.5) < 0.03


def test_the_answer_follows_the_working() -> None:
    assert Item("Is it?", " 8815 #### 5188 ").answer == "5188"
    assert Item("Is it?", " 1 #### 2 #### 3").answer == "3"
    assert Item("Is it?", " yes\n").answer == "yes"
    assert Item("Is it?", " no").answer == "no"


@given(seeds, st.sampled_from(sorted(TASKS)), st.sampled_from(["train", "validation", "prompts"]))
def test_draw_stays_in_its_split(seed: int, name: str, split: str) -> None:
    assert split_of(draw(TASKS[name], Random(seed), split).prompt) == split  # type: ignore[arg-type]


@pytest.mark.parametrize("name", TASKS)
def test_bundled_prompt_sets_match_the_generators(name: str) -> None:
    text = (BUNDLED_DIR / f"{name}.jsonl").read_text()
    assert text == prompt_set_text(name)
    lines = [json.loads(line) for line in text.splitlines()]
    assert lines == prompt_set(name)
    assert len(lines) == ITEMS_PER_SET == 300
    assert len({line["id"] for line in lines}) == 300
    assert len({line["prompt"] for line in lines}) == 300
    # A prompt's split is a function of its text, and training draws from "train" only.
    assert {split_of(line["prompt"]) for line in lines} == {"prompts"}
