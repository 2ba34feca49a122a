"""Text to token ids and back, and the vocabulary file of a bundle."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import tokenizers

from arkinfer.checkpoint import TokenizerFiles
from arkinfer.errors import InvalidBundleError, InvalidOptionError, PromptError, TokenizerError


class Tokenizer:
    """A tokenizer of the ``tokenizers`` library plus the bytes of each token.

    Args:
        source: the text of a ``tokenizer.json``.
        token_bytes: the bytes that each token adds to the text, by id; empty
            for control tokens. None derives them from ``source``.
        add_bos: whether :meth:`encode` puts ``bos_id`` first by default.
        bos_id: the token that starts a text; None takes the one that
            ``source`` itself puts first, if any.
        eos_ids: the tokens that end an answer.
        special_ids: control tokens, which stand for no text.

    Raises:
        TokenizerError: ``source`` is not a tokenizer that the library reads.
    """

    def __init__(
        self,
        source: str,
        token_bytes: Sequence[bytes] | None = None,
        *,
        add_bos: bool = False,
        bos_id: int | None = None,
        eos_ids: Iterable[int] = (),
        special_ids: Iterable[int] = (),
    ) -> None:
        self._library = parse(source)
        self._strip = _leading_spaces_to_strip(_decoder(self._library))
        self.token_bytes = tuple(derive_token_bytes(source) if token_bytes is None else token_bytes)
        self.add_bos = add_bos
        self.bos_id = leading_id(self._library) if bos_id is None else bos_id
        self.eos_ids = tuple(eos_ids)
        self.special_ids = frozenset(special_ids)

    @classmethod
    def from_files(cls, files: TokenizerFiles) -> Tokenizer:
        """The tokenizer of a checkpoint."""
        return cls(
            files.json,
            files.token_bytes,
            add_bos=files.add_bos,
            bos_id=files.bos_id,
            eos_ids=files.eos_ids,
            special_ids=files.special_ids,
        )

    def __len__(self) -> int:
        return len(self.token_bytes)

    def encode(self, text: str, add_bos: bool | None = None) -> list[int]:
        """Token ids of ``text``; control tokens written in it become their ids.

        Args:
            text: any text, also empty.
            add_bos: put ``bos_id`` first unless the text already starts with
                it; None follows the model.

        Raises:
            PromptError: ``text`` has a lone surrogate, so it is not Unicode.
            InvalidOptionError: ``add_bos`` for a tokenizer that has no such token.
        """
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise PromptError(
                f"the text is not valid Unicode at character {error.start}", "UTF-8 text"
            ) from None
        ids: list[int] = self._library.encode(text, add_special_tokens=False).ids
        wanted = self.add_bos if add_bos is None else add_bos
        if not wanted:
            return ids
        if self.bos_id is None:
            raise InvalidOptionError("a BOS token was asked for, but the tokenizer has none")
        if ids[:1] != [self.bos_id]:
            ids.insert(0, self.bos_id)
        return ids

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ``ids``; control tokens add nothing, broken UTF-8 becomes U+FFFD.

        Raises:
            InvalidOptionError: an id is outside the vocabulary.
        """
        text = self.decode_bytes(ids).decode("utf-8", errors="replace")
        for _ in range(self._strip):
            text = text.removeprefix(" ")
        return text

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """The bytes of ``ids`` joined: what a stream of these tokens adds to a text."""
        pieces = []
        for token in ids:
            if not 0 <= token < len(self.token_bytes):
                raise InvalidOptionError(
                    f"token id {token}", f"an id from 0 to {len(self.token_bytes) - 1}"
                )
            pieces.append(self.token_bytes[token])
        return b"".join(pieces)

    def token(self, token: int) -> str:
        """The vocabulary entry of one id, as the tokenizer spells it; empty if it has none."""
        entry: str | None = self._library.id_to_token(token)
        return entry or ""

    def token_id(self, entry: str) -> int | None:
        """The id of a vocabulary entry such as ``<|im_end|>``, or None."""
        found: int | None = self._library.token_to_id(entry)
        return found


def parse(source: str) -> tokenizers.Tokenizer:
    """Read a ``tokenizer.json`` and switch its truncation and padding off.

    Raises:
        TokenizerError: it is not a tokenizer that the library reads.
    """
    try:
        library = tokenizers.Tokenizer.from_str(source)
        library.no_truncation()
        library.no_padding()
    except Exception as error:  # the library raises nothing narrower
        raise TokenizerError(
            f"the tokenizers library cannot read this tokenizer.json: {str(error)[:200]}",
            f"a file that tokenizers {tokenizers.__version__} reads",
        ) from None
    return library


def leading_id(library: tokenizers.Tokenizer) -> int | None:
    """The token that the tokenizer's own post-processor puts before a text, or None."""
    plain = library.encode("a", add_special_tokens=False).ids
    ids: list[int] = library.encode("a", add_special_tokens=True).ids
    return ids[0] if len(ids) > len(plain) and ids[:1] != plain[:1] else None


def derive_token_bytes(source: str) -> tuple[bytes, ...]:
    """The bytes that each token of a ``tokenizer.json`` adds to a text, by id.

    Two families are known: byte-level BPE, where each character of a token stands for
    one byte, and SentencePiece-like decoders, where ``▁`` is a space and ``<0xE4>`` a
    byte. Ids without a token, control tokens and the unknown token get no bytes.

    Raises:
        TokenizerError: unreadable, or a decoder of another family.
    """
    library = parse(source)
    kinds = _decoder_kinds(_decoder(library))
    byte_level = "ByteLevel" in kinds
    if not byte_level and not kinds & {"Replace", "Metaspace"}:
        raise TokenizerError(
            f"the tokenizer's decoder is {', '.join(sorted(kinds)) or 'missing'}",
            "a byte-level or a SentencePiece decoder",
        )
    table = library.get_vocab(with_added_tokens=True)
    if table and max(table.values()) >= _MAX_VOCABULARY:
        raise TokenizerError(
            f"the tokenizer has a token with id {max(table.values())}",
            f"ids below {_MAX_VOCABULARY}",
        )
    added = library.get_added_tokens_decoder()
    silent: set[str | None] = {token.content for token in added.values() if token.special}
    silent.add(getattr(library.model, "unk_token", None))
    pieces = [b""] * (max(table.values(), default=-1) + 1)
    for token, index in table.items():
        if token in silent:
            continue
        if byte_level:
            pieces[index] = _byte_level(token)
        elif "ByteFallback" in kinds and _BYTE_TOKEN.fullmatch(token):
            pieces[index] = bytes([int(token[3:5], 16)])
        else:
            pieces[index] = token.replace("▁", " ").encode()
    return tuple(pieces)


_MAX_VOCABULARY = 1 << 24  # far beyond any model; guards against an id like 2^32
_BYTE_TOKEN = re.compile(r"<0x[0-9A-Fa-f]{2}>")


def byte_alphabet() -> dict[str, int]:
    """GPT-2's printable character for each byte, as character -> byte.

    Printable Latin-1 characters stand for themselves and the remaining
    bytes, in order, for the characters from U+0100 on.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    alphabet = {chr(byte): byte for byte in printable}
    others = (byte for byte in range(256) if chr(byte) not in alphabet)
    return alphabet | {chr(0x100 + index): byte for index, byte in enumerate(others)}


_BYTE_ALPHABET = byte_alphabet()


def _byte_level(token: str) -> bytes:
    # An added token can hold characters outside the alphabet; it stands for itself.
    if all(character in _BYTE_ALPHABET for character in token):
        return bytes(_BYTE_ALPHABET[character] for character in token)
    return token.encode()


def special_ids(source: str) -> tuple[int, ...]:
    """The control tokens of a ``tokenizer.json``, ascending.

    Raises:
        TokenizerError: unreadable.
    """
    added = parse(source).get_added_tokens_decoder()
    return tuple(sorted(index for index, token in added.items() if token.special))


def _decoder(library: tokenizers.Tokenizer) -> Any:
    """The library's decoder as it would be written, whatever short form the file used."""
    return None if library.decoder is None else json.loads(library.decoder.__getstate__())


def _decoder_kinds(decoder: Any) -> set[str]:
    if not isinstance(decoder, dict):
        return set()
    inner = [_decoder_kinds(part) for part in decoder.get("decoders") or []]
    own = {decoder["type"]} if decoder.get("type") != "Sequence" else set()
    return own.union(*inner)


def _leading_spaces_to_strip(decoder: Any) -> int:
    """How many spaces of a dummy prefix the decoder takes off the start of a text."""
    if not isinstance(decoder, dict):
        return 0
    if decoder.get("type") == "Strip" and decoder.get("content") == " ":
        return int(decoder.get("start", 0))
    if decoder.get("type") == "Metaspace":
        return 0 if decoder.get("prepend_scheme", "always") == "never" else 1
    return max((_leading_spaces_to_strip(d) for d in decoder.get("decoders") or []), default=0)


def vocabulary_bytes(token_bytes: Sequence[bytes]) -> bytes:
    """The content of a bundle's ``vocabulary.bin``: count, count+1 offsets, bytes."""
    offsets = np.zeros(len(token_bytes) + 1, np.uint64)
    np.cumsum([len(piece) for piece in token_bytes], out=offsets[1:])
    if offsets[-1] >= 1 << 32:
        raise TokenizerError(f"the vocabulary has {offsets[-1]} bytes", "fewer than 2^32")
    head = np.uint32(len(token_bytes)).tobytes()
    return head + offsets.astype("<u4").tobytes() + b"".join(token_bytes)


def read_vocabulary(data: bytes) -> tuple[bytes, ...]:
    """Read what :func:`vocabulary_bytes` wrote.

    Raises:
        InvalidBundleError: counts or offsets do not fit the data.
    """
    count = int.from_bytes(data[:4], "little")
    start = 4 + 4 * (count + 1)
    if len(data) < 8 or start > len(data):
        raise InvalidBundleError(
            f"vocabulary.bin has {len(data)} bytes but counts {count} tokens",
            f"at least {start} bytes",
            "compile the bundle again",
        )
    offsets = np.frombuffer(data, "<u4", count + 1, 4).astype(np.int64)
    body = data[start:]
    if offsets[0] != 0 or offsets[-1] != len(body) or np.any(np.diff(offsets) < 0):
        raise InvalidBundleError(
            "the offsets in vocabulary.bin do not fit its bytes",
            f"offsets that rise from 0 to {len(body)}",
            "compile the bundle again",
        )
    bounds = offsets.tolist()
    return tuple(body[a:b] for a, b in pairwise(bounds))
