"""The tokens on which a layer is carved: sampled from the dense model, or of the user's files."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from pathlib import Path
from random import Random

import torch
from torch import Tensor
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from models.smollm2.sampling import sample
from orchestrator import text_file
from orchestrator.errors import InputError

TEXTS = 192
LENGTH = 512  # tokens of a text
HELD_OUT = 16  # of the texts: nothing is fitted to them, all that is measured is measured on them
TEXTS_AT_ONCE = 64
MAX_FILE_BYTES = 64 << 20
START = "<|endoftext|>"
CHAT = (
    "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face"
    "<|im_end|>\n<|im_start|>user\n"
)
CHATS = 4  # every how many-th text is a conversation, of which the model writes both sides
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
    """How each text begins, in tokens; which topic meets which form is drawn from the seed."""
    pairs = list(product(OPENINGS, TOPICS.replace("\n", "").split(",")))
    Random(seed).shuffle(pairs)
    begun = []
    for number, (form, topic) in enumerate(pairs[:TEXTS]):
        prose = START + form.format(topic=topic, Topic=topic[0].upper() + topic[1:])
        begun.append(tokenizer(CHAT if number % CHATS == 0 else prose)["input_ids"])
    return begun


def sampled(
    model: LlamaForCausalLM,
    begun: list[list[int]],
    batch: int,
    seed: int,
    advance: Callable[[int], object],
) -> Tensor:
    """The texts of one batch, (TEXTS_AT_ONCE or fewer, LENGTH)."""
    part = begun[batch * TEXTS_AT_ONCE : (batch + 1) * TEXTS_AT_ONCE]
    generator = torch.Generator().manual_seed(seed + batch)
    return sample(model, part, LENGTH, generator, advance)


def from_files(tokenizer: PreTrainedTokenizerFast, files: list[Path], seed: int) -> Tensor:
    """Texts of the files, (TEXTS, LENGTH), in an order drawn from the seed.

    Raises:
        InputError: a file cannot be read as text, or all together are too short.
    """
    tokens: list[int] = []
    for file in files:
        text = text_file.read(file, MAX_FILE_BYTES)
        tokens += tokenizer(START)["input_ids"] + tokenizer(text)["input_ids"]
    rows = len(tokens) // LENGTH
    if rows < TEXTS:
        raise InputError(
            f"--calibration {', '.join(map(str, files))}: {len(tokens)} tokens of text; "
            f"allowed: at least {TEXTS * LENGTH} (about {TEXTS * LENGTH * 4 // 1000} kB of English)"
        )
    texts = torch.tensor(tokens[: rows * LENGTH]).view(rows, LENGTH)
    order = torch.randperm(rows, generator=torch.Generator().manual_seed(seed))
    return texts[order[:TEXTS]]
