"""The generators give right answers; splits and prompt sets hold what they promise."""

import json
import re
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.tasks import (
    FACTS,
    ITEMS_PER_SET,
    PROMPTS_DIR,
    TASKS,
    Item,
    arithmetic,
    compare,
    draw,
    facts,
    final_answer,
    order,
    prompt_set,
    prompt_set_text,
    reading,
    split_of,
)

seeds = st.integers(min_value=0, max_value=2**32)


@given(seeds)
def test_arithmetic(seed: int) -> None:
    item = arithmetic(Random(seed))
    match = re.fullmatch(r"What is (\d{3,4}) ([+-]) (\d{3,4})\?", item.prompt)
    assert match
    a, b = int(match[1]), int(match[3])
    result = a + b if match[2] == "+" else a - b
    assert result >= 0
    assert item.answer == str(result)
    assert item.completion == f" {item.answer[::-1]} #### {item.answer}"


@given(seeds)
def test_compare(seed: int) -> None:
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
def test_order(seed: int) -> None:
    item = order(Random(seed))
    kind, _, listed = item.prompt.removesuffix(".").partition(": ")
    words = listed.split()
    assert 3 <= len(words) <= 5
    assert len(set(words)) == len(words)
    expected = words[::-1] if kind == "Reverse" else sorted(words)
    assert item.completion == " " + " ".join(expected)


@given(seeds)
def test_facts(seed: int) -> None:
    item = facts(Random(seed))
    match = re.fullmatch(r"(.+\?) A\) (\w+) B\) (\w+) C\) (\w+) D\) (\w+)\nAnswer:", item.prompt)
    assert match
    truths = {
        question.format(subject): objects[subject]
        for question, objects in FACTS.values()
        for subject in objects
    }
    options = dict(zip("ABCD", match.groups()[1:], strict=True))
    assert len(set(options.values())) == 4
    assert options[item.answer] == truths[match[1]]
    assert item.completion == f" {truths[match[1]]} #### {item.answer}"


def test_prompt_set_asks_what_training_teaches() -> None:
    rng = Random(0)
    taught = {draw(facts, rng, "train").prompt.partition("?")[0] for _ in range(4000)}
    asked = {str(line["prompt"]).partition("?")[0] for line in prompt_set("facts")}
    assert asked <= taught


@given(seeds)
def test_reading(seed: int) -> None:
    item = reading(Random(seed))
    told = re.findall(r"(\w+) is in the (\w+) with a (\w+)\.", item.prompt)
    assert len(told) == 3
    question = item.prompt.rpartition(". ")[2]
    match = re.fullmatch(r"(?:Is|Does) (\w+) (in the|have a) (\w+)\?", question)
    assert match
    place, thing = {person: (place, thing) for person, place, thing in told}[match[1]]
    fact = place if match[2] == "in the" else thing
    assert item.completion == f" {fact} #### {'yes' if match[3] == fact else 'no'}"


@pytest.mark.parametrize("name", ["compare", "reading"])
def test_yes_and_no_are_even(name: str) -> None:
    rng = Random(0)
    yes = sum(TASKS[name](rng).answer == "yes" for _ in range(4000))
    assert abs(yes / 4000 - 0.5) < 0.03


def test_final_answer() -> None:
    assert final_answer(" 8815 #### 5188 ") == "5188"
    assert final_answer(" 1 #### 2 #### 3") == "3"
    assert final_answer(" yes\n") == "yes"
    assert Item("Is it?", " no").answer == "no"


@given(seeds, st.sampled_from(sorted(TASKS)), st.sampled_from(["train", "validation", "prompts"]))
def test_draw_stays_in_its_split(seed: int, name: str, split: str) -> None:
    assert split_of(draw(TASKS[name], Random(seed), split).prompt) == split  # type: ignore[arg-type]


@pytest.mark.parametrize("name", TASKS)
def test_prompt_sets_are_what_the_program_writes(name: str) -> None:
    text = (PROMPTS_DIR / f"{name}.jsonl").read_text()
    assert text == prompt_set_text(name)
    lines = [json.loads(line) for line in text.splitlines()]
    assert lines == prompt_set(name)
    assert len(lines) == ITEMS_PER_SET == 300
    assert len({line["id"] for line in lines}) == 300
    assert len({line["prompt"] for line in lines}) == 300
    # A prompt's split is a function of its text and training draws from "train" only.
    assert {split_of(line["prompt"]) for line in lines} == {"prompts"}
