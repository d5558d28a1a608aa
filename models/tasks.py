"""The bundled model's five tasks: its training data and its prompt sets.

Every item is drawn from a seeded ``random.Random``. Its split is a function of its prompt alone
(`split_of`), so an item of a prompt set cannot occur in training, whatever the seeds are.

``python -m models.tasks`` writes the prompt sets to ``prompts/``.
"""

import json
import zlib
from collections.abc import Callable
from random import Random
from typing import Literal, NamedTuple

from orchestrator.prompts.prompt_sets import BUNDLED_DIR
from orchestrator.prompts.scoring import extract_answer

Split = Literal["train", "validation", "prompts"]

PROMPT_SEED = 2024
ITEMS_PER_SET = 300


class Item(NamedTuple):
    """A prompt and its completion, which starts with the space after the prompt.

    Where the completion shows its working, the answer follows ``####`` (the GSM8K convention).
    """

    prompt: str
    completion: str

    @property
    def answer(self) -> str:
        """The part of the completion that is scored."""
        return extract_answer(self.completion)


def split_of(prompt: str) -> Split:
    """Return a prompt's split: 1 in 32 prompt sets, 1 in 32 validation, the rest training."""
    bucket = zlib.crc32(prompt.encode()) % 32
    return "prompts" if bucket == 0 else "validation" if bucket == 1 else "train"


def _words(text: str) -> list[str]:
    return text.split()


def _pairs(text: str) -> dict[str, str]:
    return dict(pair.split("=") for pair in text.split())


# --- arithmetic -----------------------------------------------------------------------------------


def arithmetic(rng: Random) -> Item:
    """Return a sum or difference of two numbers, both with three or both with four digits.

    A difference has as many digits as its operands.
    """
    digits = rng.choice((3, 4))
    sign = rng.choice("+-")
    while True:
        item = _worked(_number(rng, digits), sign, _number(rng, digits))
        if len(item.answer) >= digits:
            return item


def any_arithmetic(rng: Random) -> Item:
    """Return a sum or difference of two numbers with one to four digits each, for training."""
    if rng.random() < 0.5:
        return arithmetic(rng)
    first, second = (_number(rng, rng.randint(1, 4)) for _ in range(2))
    return _worked(first, rng.choice("+-"), second)


def _number(rng: Random, digits: int) -> int:
    return rng.randint(10 ** (digits - 1) if digits > 1 else 0, 10**digits - 1)


def _worked(a: int, sign: str, b: int) -> Item:
    """Return a sum or difference with its working; the larger number of a difference comes first.

    The working lists the columns from the units upwards: both digits, 0 where a number has no more,
    then the outgoing carry and the digit of the result (`86:15` in a sum with an incoming carry,
    `29:13` in a difference that borrows). So each column is a small table lookup, and its incoming
    carry is in the column before it. Then follows the result in normal order.
    """
    if sign == "-":
        a, b = max(a, b), min(a, b)
    columns, carry = [], 0
    width = max(len(str(a)), len(str(b)))
    for x, y in zip(reversed(f"{a:0{width}}"), reversed(f"{b:0{width}}"), strict=True):
        column = int(x) + int(y) + carry if sign == "+" else int(x) - int(y) - carry
        carry = int(column > 9 or column < 0)
        columns.append(f"{x}{y}:{carry}{column % 10}")
    result = a + b if sign == "+" else a - b
    return Item(f"What is {a} {sign} {b}?", f" {' '.join(columns)} #### {result}")


# --- compare --------------------------------------------------------------------------------------


def compare(rng: Random) -> Item:
    """Ask whether one three-digit number is greater, or smaller, than another; never equal ones.

    Half of the pairs share the hundreds, so that the first digit does not decide. The working
    compares digit by digit.
    """
    a = b = rng.randint(100, 999)
    while b == a:
        b = rng.randint(100, 999) if rng.random() < 0.5 else a - a % 100 + rng.randint(0, 99)
    word, truth = rng.choice((("greater", a > b), ("smaller", a < b)))
    signs = " ".join(
        "<" if x < y else ">" if x > y else "=" for x, y in zip(str(a), str(b), strict=True)
    )
    return Item(f"Is {a} {word} than {b}?", f" {signs} #### {'yes' if truth else 'no'}")


# --- order ----------------------------------------------------------------------------------------

NOUNS = _words(
    "apple bread cloud door egg flag garden house island jar king lamp moon night oven pen queen "
    "river stone tree uncle violin window yard"
)


def order(rng: Random) -> Item:
    """Sort words with different first letters, or digits, in ascending order."""
    if rng.random() < 0.5:
        listed = rng.sample(NOUNS, rng.randint(3, 4))
        return Item(f"Sort by letter: {' '.join(listed)}.", " " + " ".join(sorted(listed)))
    listed = rng.sample("0123456789", rng.randint(4, 5))
    return Item(f"Sort by size: {' '.join(listed)}.", " " + " ".join(sorted(listed)))


# --- facts ----------------------------------------------------------------------------------------


# relation: (question, {subject: object}). A subject has one object per relation.
FACTS: dict[str, tuple[str, dict[str, str]]] = {
    "capital": (
        "What is the capital of {}?",
        _pairs(
            "Austria=Vienna Chile=Santiago China=Beijing Cuba=Havana Denmark=Copenhagen "
            "Egypt=Cairo England=London Finland=Helsinki France=Paris Germany=Berlin "
            "Ghana=Accra Greece=Athens Hungary=Budapest Iran=Tehran Ireland=Dublin Italy=Rome "
            "Japan=Tokyo Kenya=Nairobi Norway=Oslo Peru=Lima Poland=Warsaw Portugal=Lisbon "
            "Russia=Moscow Spain=Madrid Sweden=Stockholm"
        ),
    ),
    "continent": (
        "On which continent is {}?",
        _pairs(
            "Austria=Europe Chile=America China=Asia Cuba=America Denmark=Europe Egypt=Africa "
            "Finland=Europe France=Europe Ghana=Africa India=Asia Iran=Asia Japan=Asia "
            "Kenya=Africa Norway=Europe Peru=America Samoa=Oceania Tonga=Oceania Fiji=Oceania"
        ),
    ),
    "young": (
        "What is a young {} called?",
        _pairs(
            "cat=kitten cow=calf deer=fawn dog=puppy duck=duckling goat=kid goose=gosling "
            "hen=chick horse=foal lion=cub owl=owlet pig=piglet sheep=lamb swan=cygnet"
        ),
    ),
    "colour": (
        "What is the colour of {}?",
        _pairs(
            "bananas=yellow blood=red chocolate=brown coal=black grass=green ink=blue "
            "lemons=yellow milk=white oranges=orange plums=purple ravens=black ruby=red "
            "salt=white silver=grey"
        ),
    ),
    "opposite": (
        "What is the opposite of {}?",
        _pairs(
            "big=small clean=dirty cold=hot dark=light early=late empty=full fast=slow "
            "hard=soft high=low long=short new=old open=closed poor=rich wet=dry"
        ),
    ),
}


def facts(rng: Random) -> Item:
    """Return a multiple-choice question with four options, all of them objects of its relation.

    The working is the right option as listed; its object is the fact to learn.
    """
    question, objects = FACTS[rng.choice(list(FACTS))]
    subject = rng.choice(list(objects))
    right = objects[subject]
    options = [right, *rng.sample(sorted(set(objects.values()) - {right}), 3)]
    rng.shuffle(options)
    letter = "ABCD"[options.index(right)]
    listed = ", ".join(f"{option} {name}" for option, name in zip(options, "ABCD", strict=True))
    return Item(
        f"{question.format(subject)} Options: {listed}.\nAnswer:",
        f" {right} {letter} #### {letter}",
    )


# --- reading --------------------------------------------------------------------------------------

PEOPLE = _words("Adam Anna Ben Clara David Emma Felix Grace Henry Ida Jack Kate Leo Mia Paul Rosa")
VERBS = _words("like own paint sell want wash")
THINGS = _words("bags balls bikes boats clocks cups hats keys kites rings toys trains")


def reading(rng: Random) -> Item:
    """Return four sentences about who does what, and a yes/no question about one of the people.

    A wrong thing belongs to another person of the same passage: every word of the question occurs
    in the passage, and only the pairing decides. The working quotes the relevant sentence, puts the
    question's thing beside it, and states whether the two are the same.
    """
    people, verbs, things = (rng.sample(words, 4) for words in (PEOPLE, VERBS, THINGS))
    sentences = [
        f"{person} {verb}{'es' if verb == 'wash' else 's'} {thing}"
        for person, verb, thing in zip(people, verbs, things, strict=True)
    ]
    subject = rng.randrange(4)
    owner = subject if rng.random() < 0.5 else rng.choice([i for i in range(4) if i != subject])
    verdict = "yes" if owner == subject else "no"
    return Item(
        f"{'. '.join(sentences)}. Does {people[subject]} {verbs[subject]} {things[owner]}?",
        f" {sentences[subject]} {things[owner]} {verdict} #### {verdict}",
    )


# --- recall ---------------------------------------------------------------------------------------

WORDS = sorted(
    {*NOUNS, *PEOPLE, *THINGS, *"ABCD"}.union(*(objects.values() for _, objects in FACTS.values()))
)


def recall(rng: Random) -> Item:
    """Copy a list of words, or repeat pairs of words in another order; used in training only.

    The other tasks rest on looking up which word followed another. Here almost every word of the
    completion trains that, so that the model learns it early.
    """
    if rng.random() < 0.3:
        listed = " ".join(rng.sample(WORDS, rng.randint(8, 12)))
        return Item(f"Repeat: {listed}.", f" {listed}")
    words = rng.sample(WORDS, 2 * rng.randint(4, 6))
    pairs = [f"{first} {second}" for first, second in zip(words[::2], words[1::2], strict=True)]
    prompt = f"Recall: {', '.join(pairs)}."
    rng.shuffle(pairs)
    return Item(prompt, " " + " ".join(pairs))


# --- match ----------------------------------------------------------------------------------------


def match(rng: Random) -> Item:
    """Copy pairs of words and state for each whether its words match; used in training only.

    The last step of `reading` is one such comparison per item; here each item has several.
    """
    pairs = []
    for _ in range(rng.randint(4, 6)):
        first = rng.choice(THINGS)
        pairs.append((first, first if rng.random() < 0.5 else rng.choice(THINGS)))
    listed = ", ".join(f"{first} {second}" for first, second in pairs)
    judged = (f"{first} {second} {'yes' if first == second else 'no'}" for first, second in pairs)
    return Item(f"Match: {listed}.", f" {' '.join(judged)}")


# --- splits and prompt sets -----------------------------------------------------------------------

TASKS: dict[str, Callable[[Random], Item]] = {
    "arithmetic": arithmetic,
    "compare": compare,
    "order": order,
    "facts": facts,
    "reading": reading,
}
TRAINING = {**TASKS, "arithmetic": any_arithmetic, "recall": recall, "match": match}
# Each task's longest completion, in tokens of the bundled tokenizer, including the final </s>.
MAX_TOKENS = {"arithmetic": 32, "compare": 6, "order": 11, "facts": 5, "reading": 8}


def draw(task: Callable[[Random], Item], rng: Random, split: Split) -> Item:
    """Draw items of a task until one belongs to the split, and return it."""
    while True:
        item = task(rng)
        if split_of(item.prompt) == split:
            return item


def prompt_set(name: str) -> list[dict[str, object]]:
    """Return the lines of ``prompts/NAME.jsonl``: distinct prompts, in the order of drawing."""
    rng = Random(f"{PROMPT_SEED} {name}")
    items: dict[str, Item] = {}
    while len(items) < ITEMS_PER_SET:
        item = draw(TASKS[name], rng, "prompts")
        items.setdefault(item.prompt, item)
    return [
        {
            "id": f"{name}-{number:03d}",
            "prompt": item.prompt,
            "answer": item.answer,
            "max_tokens": MAX_TOKENS[name],
            "stop": ["\n"],
        }
        for number, item in enumerate(items.values())
    ]


def prompt_set_text(name: str) -> str:
    """Return the content of a prompt set's file."""
    return "".join(json.dumps(line) + "\n" for line in prompt_set(name))


if __name__ == "__main__":
    for set_name in TASKS:
        (BUNDLED_DIR / f"{set_name}.jsonl").write_text(prompt_set_text(set_name))
