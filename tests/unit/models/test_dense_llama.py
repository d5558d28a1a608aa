"""A GGUF file loads as the Llama that it was written from, and texts are sampled from it."""

from pathlib import Path

import pytest
import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from models.smollm2 import dense
from models.smollm2.sampling import sample
from orchestrator.errors import InputError
from tests.harness import tiny_llama

Loaded = tuple[LlamaForCausalLM, PreTrainedTokenizerFast]


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    file = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    tiny_llama.write_gguf(tiny_llama.llama(), file)
    return dense.load(file)


def test_the_loaded_model_computes_the_logits_of_the_written_one(loaded: Loaded) -> None:
    ids = torch.randint(len(tiny_llama.TOKENS), (3, 40))
    with torch.no_grad():
        expected = tiny_llama.llama()(ids).logits
        assert torch.allclose(loaded[0](ids).logits, expected, atol=1e-4)


def test_every_digit_is_a_token_and_text_survives_a_round_trip(loaded: Loaded) -> None:
    tokenizer = loaded[1]
    text = "the 1984 é\n"
    assert tokenizer.tokenize("the 1984")[-4:] == ["1", "9", "8", "4"]
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    assert tokenizer("<|im_end|>")["input_ids"] == [2] == [tokenizer.eos_token_id]


@pytest.mark.parametrize("content", [b"", b"GGUF", b"no model at all"])
def test_a_file_that_is_not_gguf_is_rejected(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "other.gguf"
    file.write_bytes(content)
    with pytest.raises(InputError, match=r"other\.gguf: not a readable GGUF file"):
        dense.load(file)


def test_texts_begin_with_their_openings_and_repeat_by_seed(loaded: Loaded) -> None:
    openings = [[0, 5, 6, 7], [1], [0, 9]]
    steps: list[int] = []

    def draw(seed: int) -> torch.Tensor:
        return sample(loaded[0], openings, 24, torch.Generator().manual_seed(seed), steps.append)

    texts = draw(1)
    assert texts.shape == (3, 24)
    assert [row[: len(opening)].tolist() for row, opening in zip(texts, openings, strict=True)] == (
        openings
    )
    assert torch.equal(draw(1), texts)
    assert not torch.equal(draw(2), texts)
    assert steps[:23] == [3] * 23


def test_sampling_follows_the_models_probabilities(
    loaded: Loaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("models.smollm2.sampling.TEMPERATURE", 1e-6)  # always the likeliest token
    texts = sample(loaded[0], [[0, 5], [1]], 32, torch.Generator().manual_seed(0), lambda n: None)
    with torch.no_grad():
        likeliest = loaded[0](texts).logits.argmax(dim=-1)
    assert torch.equal(texts[0, 2:], likeliest[0, 1:-1])
    assert torch.equal(texts[1, 1:], likeliest[1, :-1])
