"""Tokens as bytes and as text.

A token may be only a part of a character, so tokens are handled as bytes:

    ids ──► bytes, one after another ──► text      (bytes that are no character: U+FFFD)
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable, Sequence

from tokenizers import Tokenizer
from tokenizers.decoders import ByteLevel
from transformers.convert_slow_tokenizer import bytes_to_unicode

_SPACE = "\u2581"  # SentencePiece's
_BYTE = re.compile(r"<0x([0-9A-F]{2})>")


class ModelTokenizer:
    """The tokens of a checkpoint: byte-level BPE, or SentencePiece's pieces."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        pieces = tokenizer.get_vocab()
        self.size = 1 + max(pieces.values())
        added = tokenizer.get_added_tokens_decoder()
        self._special = frozenset(id for id, token in added.items() if token.special)
        byte_level = isinstance(tokenizer.decoder, ByteLevel)
        alphabet: dict[int, str] = bytes_to_unicode() if byte_level else {}  # type: ignore[no-untyped-call]
        of_character = {character: byte for byte, character in alphabet.items()}
        self._bytes: dict[int, bytes] = {}
        for piece, id in pieces.items():
            if id in added:
                self._bytes[id] = piece.encode()
            elif of_character.keys() >= set(piece):
                self._bytes[id] = bytes(of_character[character] for character in piece)
            elif match := _BYTE.fullmatch(piece):
                self._bytes[id] = bytes.fromhex(match[1])
            else:
                self._bytes[id] = piece.replace(_SPACE, " ").encode()

    def special(self, texts: Iterable[str]) -> frozenset[int]:
        """Return the special tokens with these names; they add no text."""
        return self._special & {self._tokenizer.token_to_id(text) for text in texts}

    def encode(self, text: str, *, special: bool = True) -> tuple[list[int], list[int]]:
        """Return a text's tokens, and the character at which each begins.

        `special`: with the tokens that the checkpoint adds around a text, if any.
        """
        encoding = self._tokenizer.encode(text, add_special_tokens=special)
        return encoding.ids, [start for start, _ in encoding.offsets]

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of tokens that continue another text; special tokens have none."""
        return b"".join(self.text_bytes(id) for id in ids).decode(errors="replace")

    def bytes_of(self, id: int) -> bytes:
        """Return a token's bytes, or a special token's name; none for an unknown token."""
        return self._bytes.get(id, b"")

    def text_bytes(self, id: int) -> bytes:
        """Return the bytes that a token adds to a text."""
        return b"" if id in self._special else self.bytes_of(id)

    def name(self, id: int) -> str:
        r"""Return a token's text as OpenAI writes it; a part of a character is `bytes:\xe6\x9d`."""
        raw = self.bytes_of(id)
        try:
            return raw.decode()
        except UnicodeDecodeError:
            return "bytes:" + "".join(f"\\x{byte:02x}" for byte in raw)


class Offsets:
    """The characters at which the next tokens of a growing text begin."""

    def __init__(self, vocabulary: ModelTokenizer, start: int = 0) -> None:
        self._vocabulary = vocabulary
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._at = start

    def add(self, ids: Iterable[int]) -> list[int]:
        """Return the next offsets; a token within a character begins where that character does."""
        offsets = []
        for id in ids:
            offsets.append(self._at)
            self._at += len(self._decoder.decode(self._vocabulary.text_bytes(id)))
        return offsets
