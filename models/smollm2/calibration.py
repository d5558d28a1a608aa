"""The calibration tokens on which layers are carved.

Texts are sampled from the dense model or come from the user's files. The first layers also see
every token of the vocabulary once: their output depends on the token more than on its context, and
texts of this length use only a fifth of the vocabulary.

    the first texts         the next TUNED            the last REPORTED
    fit gates, neurons      fit how much of the       measure the layers and
    and down-projections    drift's correction        the model for build.json,
                            each layer takes          and nothing else
"""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import product
from pathlib import Path
from random import Random

import torch
from torch import Tensor
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from models.smollm2.sampling import sample
from orchestrator.errors import InputError
from orchestrator.files import text_file

TEXTS = 560
LENGTH = 256  # tokens of a text
TUNED = 32
REPORTED = 32
TEXTS_AT_ONCE = 132
MAX_FILE_BYTES = 64 << 20
START = "<|endoftext|>"
WORD = re.compile("Ġ[A-Za-z]{2,}")  # a token that is a word with a space before it
CHAT = (
    "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face"
    "<|im_end|>\n<|im_start|>user\n"
)
# Of every KINDS texts, one is a conversation of which the model writes both sides, and one begins
# with a random word.
KINDS = 4
OPENINGS = (
    "{Topic} can be described as",
    "{Topic} in history.\n\n",
    "A lesson about {topic} for schools.\n\n",
    "Some advice about {topic}:",
    "A story about {topic}.\n\nOnce",
    "What everybody should know about {topic}\n\n",
    "In this article we look at {topic}.",
)
TOPICS = """\
water,the sun,rivers,plants,animals,rocks,electricity,magnets,light,sound,heat,the weather,
the moon,the human body,food,bread,coffee,gardens,farming,tools,wood,metals,glass,plastic,
paint,clothes,shoes,cars,bicycles,trains,ships,aircraft,roads,houses,furniture,computers,
telephones,books,music,films,football,swimming,schools,mathematics,chemistry,physics,
biology,medicine,the Roman empire,Africa,China,Europe,America,India,kings,wars,the law,
money,trade,cities,the sea,islands,forests,deserts,insects,birds,fish,dogs,horses,games,
holidays,families,language,religion,philosophy,elections,newspapers,energy,space,machines"""


def openings(tokenizer: PreTrainedTokenizerFast, seed: int) -> list[list[int]]:
    """Return the first tokens of each text; topics, forms and words are drawn from the seed."""
    pairs = list(product(OPENINGS, TOPICS.replace("\n", "").split(",")))
    rng = Random(seed)
    rng.shuffle(pairs)
    words = sorted(word for word in tokenizer.get_vocab() if WORD.fullmatch(word))
    start = tokenizer(START)["input_ids"]
    openings = []
    for number, (form, topic) in enumerate(pairs[:TEXTS]):
        if number % KINDS == 0:
            openings.append(tokenizer(CHAT)["input_ids"])
        elif number % KINDS == 1:
            openings.append([*start, tokenizer.convert_tokens_to_ids(rng.choice(words))])
        else:
            prose = form.format(topic=topic, Topic=topic[0].upper() + topic[1:])
            openings.append(start + tokenizer(prose)["input_ids"])
    return openings


def vocabulary(tokens: int, seed: int) -> Tensor:
    """Return all tokens in random order, (texts, LENGTH); the first ones pad the last text."""
    order = torch.randperm(tokens, generator=torch.Generator().manual_seed(seed))
    texts = -(-tokens // LENGTH)
    return order.repeat(texts * LENGTH // tokens + 1)[: texts * LENGTH].view(texts, LENGTH)


def sampled(
    model: LlamaForCausalLM,
    begun: list[list[int]],
    batch: int,
    seed: int,
    advance: Callable[[int], object],
) -> Tensor:
    """Return the texts of one batch, (TEXTS_AT_ONCE or fewer, LENGTH)."""
    part = begun[batch * TEXTS_AT_ONCE : (batch + 1) * TEXTS_AT_ONCE]
    generator = torch.Generator().manual_seed(seed + batch)
    return sample(model, part, LENGTH, generator, advance)


def from_files(tokenizer: PreTrainedTokenizerFast, files: list[Path], seed: int) -> Tensor:
    """Return texts of the files, (TEXTS, LENGTH), in an order drawn from the seed.

    Raises:
        InputError: a file cannot be read as text, or the files are too short in total.
    """
    tokens: list[int] = []
    for file in files:
        text = text_file.read(file, MAX_FILE_BYTES)
        tokens += tokenizer(START)["input_ids"] + tokenizer(text)["input_ids"]
    rows = len(tokens) // LENGTH
    if rows < TEXTS:
        raise InputError(
            f"calibration texts {', '.join(map(str, files))}: {len(tokens)} tokens of text; "
            f"allowed: at least {TEXTS * LENGTH} (about {TEXTS * LENGTH * 4 // 1000} kB of English)"
        )
    texts = torch.tensor(tokens[: rows * LENGTH]).view(rows, LENGTH)
    order = torch.randperm(rows, generator=torch.Generator().manual_seed(seed))
    return texts[order[:TEXTS]]
