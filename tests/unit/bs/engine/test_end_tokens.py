"""The end tokens of a checkpoint are those of all its files."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

from orchestrator.errors import InputError
from orchestrator.moe import model_folder
from services.bs.text.tokenizer import ModelTokenizer
from tests.harness.parrot import FOLDER, tokenizer

CHATML = "<|im_end|>"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A base model whose end is token 0, with a fine-tune's tokenizer."""
    for name in ("config.json", "generation_config.json"):
        shutil.copy(FOLDER / name, tmp_path)
    made = tokenizer()
    made.add_special_tokens([CHATML])
    made.save(str(tmp_path / "tokenizer.json"))
    return tmp_path


def put(folder: Path, name: str, fields: Any) -> None:
    (folder / name).write_text(json.dumps(fields))


def ends(folder: Path) -> set[int]:
    return set(model_folder.end_tokens(folder, model_folder.load_tokenizer(folder)))


def end_of_turn(folder: Path) -> int:
    number = Tokenizer.from_file(str(folder / "tokenizer.json")).token_to_id(CHATML)
    assert isinstance(number, int)
    return number


@pytest.mark.parametrize("name", ["tokenizer_config.json", "special_tokens_map.json"])
@pytest.mark.parametrize("token", [CHATML, {"content": CHATML, "special": True}])
def test_a_fine_tune_for_chats_ends_with_the_token_of_its_tokenizer(
    folder: Path, name: str, token: Any
) -> None:
    put(folder, name, {"eos_token": token})
    assert ends(folder) == {0, end_of_turn(folder)}


def test_both_files_with_token_numbers_count(folder: Path) -> None:
    put(folder, "generation_config.json", {"eos_token_id": [4, 5]})
    put(folder, "config.json", {"eos_token_id": 6})
    assert ends(folder) == {4, 5, 6}


def test_an_empty_field_adds_no_end_token(folder: Path) -> None:
    (folder / "config.json").unlink()
    put(folder, "generation_config.json", {"eos_token_id": None})
    put(folder, "tokenizer_config.json", {"eos_token": None})
    put(folder, "special_tokens_map.json", {"eos_token": "no token"})
    assert ends(folder) == set()


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        ("config.json", {"eos_token_id": "2"}, "eos_token_id: allowed: a token's number"),
        ("config.json", {"eos_token_id": [2, None]}, "eos_token_id: allowed: a token's number"),
        ("generation_config.json", [], "not a JSON object"),
        ("tokenizer_config.json", {"eos_token": 2}, "eos_token: allowed: a token's text"),
    ],
)
def test_a_damaged_field_is_refused_in_one_line(
    folder: Path, name: str, fields: Any, message: str
) -> None:
    put(folder, name, fields)
    with pytest.raises(InputError, match=f"{name}: {message}") as caught:
        ends(folder)
    assert "\n" not in str(caught.value)


def test_a_stop_text_that_is_a_special_token_is_that_token(folder: Path) -> None:
    vocabulary = ModelTokenizer(model_folder.load_tokenizer(folder))
    assert vocabulary.special([CHATML, "a", "no token"]) == {end_of_turn(folder)}
