"""Tokens as bytes and as text, for both kinds of tokenizer."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders
from tokenizers.models import BPE
from tokenizers.normalizers import Prepend, Replace
from tokenizers.normalizers import Sequence as Normalizers

from services.bs.text.tokenizer import ModelTokenizer, Offsets
from tests.harness.parrot import tokenizer

PLAIN = tokenizer()
BUNDLED = ModelTokenizer(PLAIN)
IDS = st.lists(st.integers(0, BUNDLED.size - 1), max_size=30)


@pytest.fixture(scope="module")
def pieces() -> Tokenizer:
    """A tokenizer as Mixtral's: pieces with ▁ for a space, and a token for every byte."""
    vocabulary = {"<unk>": 0, "<s>": 1}
    vocabulary |= {f"<0x{byte:02X}>": 2 + byte for byte in range(256)}
    vocabulary |= {"▁": 258, "a": 259, "b": 260, "▁a": 261, "▁b": 262}
    merges = [("▁", "a"), ("▁", "b")]
    made = Tokenizer(BPE(vocabulary, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    made.normalizer = Normalizers([Prepend("▁"), Replace(" ", "▁")])
    made.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1),
        ]
    )
    made.add_special_tokens(["<unk>", "<s>"])
    return made


@given(st.text())
def test_a_texts_tokens_give_the_text(text: str) -> None:
    ids, offsets = BUNDLED.encode(text)
    special = any(BUNDLED.text_bytes(id) == b"" for id in ids)
    if not special:
        assert BUNDLED.decode(ids) == text
        assert Offsets(BUNDLED).add(ids) == offsets


@given(IDS)
def test_any_tokens_give_the_text_that_the_tokenizer_gives(ids: list[int]) -> None:
    assert BUNDLED.decode(ids) == PLAIN.decode(ids)


@given(IDS, st.integers(0, 30))
def test_offsets_grow_and_do_not_depend_on_how_tokens_are_split(ids: list[int], cut: int) -> None:
    whole = Offsets(BUNDLED).add(ids)
    apart = Offsets(BUNDLED)
    assert apart.add(ids[:cut]) + apart.add(ids[cut:]) == whole == sorted(whole)
    assert max(whole, default=0) <= len(BUNDLED.decode(ids))


def test_each_token_has_a_name_of_its_own() -> None:
    names = [BUNDLED.name(id) for id in range(BUNDLED.size)]
    assert len(set(names)) == BUNDLED.size
    assert names[0] == "</s>"


def test_pieces_keep_the_space_before_them(pieces: Tokenizer) -> None:
    vocabulary = ModelTokenizer(pieces)
    ids, offsets = vocabulary.encode("a b")
    assert [vocabulary.name(id) for id in ids] == [" a", " b"]
    assert offsets == [0, 1]
    assert vocabulary.decode(ids[1:]) == " b"


def test_pieces_that_are_bytes_make_characters(pieces: Tokenizer) -> None:
    vocabulary = ModelTokenizer(pieces)
    ids, offsets = vocabulary.encode("a東b")
    assert [vocabulary.name(id) for id in ids[1:4]] == [r"bytes:\xe6", r"bytes:\x9d", r"bytes:\xb1"]
    assert offsets == [0, 1, 1, 1, 2]
    assert vocabulary.decode(ids[1:4]) == "東"


def test_a_token_that_only_the_model_has_adds_no_text(pieces: Tokenizer) -> None:
    vocabulary = ModelTokenizer(pieces)
    assert (vocabulary.name(5000), vocabulary.decode([5000])) == ("", "")
