"""Reads ``tokenizer.model``: SentencePiece's protobuf, without a protobuf library.

The wire format is a sequence of fields, each a varint key ``number << 3 |
type`` followed by a varint (type 0), 8 bytes (1), a length and that many bytes (2), or 4 bytes
(5). Numbers of messages and fields are those of sentencepiece_model.proto.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

from arkinfer.errors import DamagedCheckpointError, TokenizerError


class PieceType(IntEnum):
    """What a vocabulary entry is; GGUF uses the same numbers."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


@dataclass(frozen=True)
class Piece:
    """One vocabulary entry; its id is its place in the list."""

    text: str
    score: float
    type: int


@dataclass(frozen=True)
class PieceModel:
    """A SentencePiece BPE model with spaces written as ``▁``.

    ``add_prefix_space`` puts one space in front of every text.
    """

    pieces: tuple[Piece, ...]
    add_prefix_space: bool


def read(path: Path) -> PieceModel:
    """Read a model file.

    Raises:
        DamagedCheckpointError: the file cannot be read or is not such a model.
        TokenizerError: a model that normalizes text or is not BPE.
    """
    try:
        data = path.read_bytes()
        return parse(data)
    except OSError as error:
        raise DamagedCheckpointError(f"'{path}' cannot be read: {error.strerror}") from None
    except (ValueError, struct.error) as error:
        raise DamagedCheckpointError(
            f"'{path}' is not a SentencePiece model: {error}", remedy="download the file again"
        ) from None


def parse(data: bytes) -> PieceModel:
    """Read the bytes of a model file.

    Raises:
        ValueError: the bytes are not such a model.
        TokenizerError: see :func:`read`.
    """
    pieces: list[Piece] = []
    trainer: dict[int, int | bytes] = {}
    normalizer: dict[int, int | bytes] = {}
    for number, value in _fields(data):
        if number == 1:
            pieces.append(_piece(_message(value)))
        elif number == 2:
            trainer = dict(_fields(_message(value)))
        elif number == 3:
            normalizer = dict(_fields(_message(value)))
    if not pieces:
        raise ValueError("it has no pieces")
    _refuse_variants(trainer, normalizer)
    return PieceModel(tuple(pieces), add_prefix_space=bool(normalizer.get(3, 1)))


def _refuse_variants(trainer: dict[int, int | bytes], normalizer: dict[int, int | bytes]) -> None:
    kinds = {1: "unigram", 2: "BPE", 3: "word", 4: "character"}
    kind = trainer.get(3, 1)
    if kind != 2:
        raise TokenizerError(
            f"tokenizer.model is a {kinds.get(int(kind or 0), 'new')} model"
            if isinstance(kind, int)
            else "tokenizer.model has no model type",
            "a BPE model",
            "convert it to a tokenizer.json with transformers",
        )
    wrong = []
    if normalizer.get(2, b""):
        wrong.append("a character map")
    if normalizer.get(4, 1):
        wrong.append("removal of extra spaces")
    if not normalizer.get(5, 1):
        wrong.append("spaces that are not escaped")
    if trainer.get(24, 0):
        wrong.append("spaces as suffixes")
    if wrong:
        raise TokenizerError(
            f"tokenizer.model normalizes text with {' and '.join(wrong)}",
            "the identity",
            "convert it to a tokenizer.json with transformers",
        )


def _piece(data: bytes) -> Piece:
    text, score, kind = "", 0.0, int(PieceType.NORMAL)
    for number, value in _fields(data):
        if number == 1:
            text = _message(value).decode("utf-8")
        elif number == 2:
            score = struct.unpack("<f", _message(value))[0]
        elif number == 3 and isinstance(value, int):
            kind = value
    return Piece(text, score, kind)


def _message(value: int | bytes) -> bytes:
    if isinstance(value, int):
        raise ValueError("a number stands where bytes belong")
    return value


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Field numbers with their values: integers, or bytes for all other wire types."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        wire = key & 7
        if wire == 0:
            number, at = _varint(data, at)
            yield key >> 3, number
            continue
        if wire == 2:
            length, at = _varint(data, at)
        elif wire in (1, 5):
            length = 8 if wire == 1 else 4
        else:
            raise ValueError(f"wire type {wire} at byte {at}")
        if length > len(data) - at:
            raise ValueError(f"{length} bytes at byte {at} of {len(data)}")
        yield key >> 3, data[at : at + length]
        at += length


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            break
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError(f"a number does not end at byte {at}")
