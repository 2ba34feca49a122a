"""Builds the JSON of the ``tokenizers`` library from what other formats store."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from arkinfer.checkpoint import TokenizerFiles
from arkinfer.converters.sentencepiece_model import PieceModel, PieceType
from arkinfer.errors import TokenizerError
from arkinfer.tokenizer import derive_token_bytes, special_ids

_GPT2 = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
_BYTES_ONLY = _GPT2 | {"use_regex": False}
# How Llama 3 cuts text into words: contractions, letters with one sign before them, up to
# three digits, signs, line ends, spaces.
_LLAMA3_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

# Far beyond real pieces (SentencePiece's default is 16); cutting is quadratic in it.
_LONGEST_PIECE = 1024

# By the name that GGUF gives the way of cutting text before BPE.
PRE_TOKENIZERS: dict[str, dict[str, Any]] = {
    "gpt-2": _GPT2,
    # Written by converters that did not recognise the tokenizer; most are GPT-2's.
    "default": _GPT2,
    "smollm": {
        "type": "Sequence",
        "pretokenizers": [{"type": "Digits", "individual_digits": True}, _GPT2],
    },
    "llama-bpe": {
        "type": "Sequence",
        "pretokenizers": [
            {
                "type": "Split",
                "pattern": {"Regex": _LLAMA3_WORDS},
                "behavior": "Isolated",
                "invert": False,
            },
            _BYTES_ONLY,
        ],
    },
}


@dataclass(frozen=True)
class AddedToken:
    """A token that is found in the text before anything else happens to it."""

    id: int
    text: str
    special: bool


def from_pieces(model: PieceModel, added: Sequence[AddedToken] = ()) -> str:
    """The JSON of a SentencePiece BPE model.

    SentencePiece joins the two neighbours whose union has the best score. The library
    wants an ordered list of pairs, so every way to cut a piece in two other
    pieces becomes a pair, ordered by the piece's score.

    Raises:
        TokenizerError: an added token stands at the id of another piece.
    """
    vocabulary: dict[str, int] = {}
    for index, piece in enumerate(model.pieces):
        vocabulary.setdefault(piece.text, index)
    tokens = {
        index: AddedToken(index, piece.text, piece.type != PieceType.USER_DEFINED)
        for index, piece in enumerate(model.pieces)
        if piece.type in (PieceType.CONTROL, PieceType.UNKNOWN, PieceType.USER_DEFINED)
        and piece.text
        and vocabulary[piece.text] == index
    }
    for token in added:
        if vocabulary.setdefault(token.text, token.id) != token.id:
            raise TokenizerError(
                f"added token '{token.text[:60]}' has id {token.id}",
                f"{vocabulary[token.text]} as in tokenizer.model",
            )
        tokens[token.id] = token
    unknown = [p.text for p in model.pieces if p.type == PieceType.UNKNOWN]
    spaces: list[dict[str, Any]] = [{"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]
    decoders: list[dict[str, Any]] = [
        {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
        {"type": "ByteFallback"},
        {"type": "Fuse"},
    ]
    if model.add_prefix_space:
        spaces.insert(0, {"type": "Prepend", "prepend": "▁"})
        decoders.append({"type": "Strip", "content": " ", "start": 1, "stop": 0})
    return _assemble(
        vocabulary,
        _merges(model),
        [tokens[index] for index in sorted(tokens)],
        normalizer={"type": "Sequence", "normalizers": spaces},
        pre_tokenizer=None,
        decoder={"type": "Sequence", "decoders": decoders},
        unk_token=unknown[0] if unknown else None,
        byte_fallback=any(p.type == PieceType.BYTE for p in model.pieces),
    )


def _merges(model: PieceModel) -> list[tuple[str, str]]:
    # Pieces of other types are matched whole or stand for bytes, and never take part.
    scores = {p.text: p.score for p in model.pieces if p.type == PieceType.NORMAL}
    order = {text: place for place, text in enumerate(scores)}
    ranked: list[tuple[float, int, int, int, tuple[str, str]]] = []
    for text, score in scores.items():
        if len(text) > _LONGEST_PIECE:
            raise TokenizerError(
                f"a piece of the tokenizer has {len(text)} characters", f"at most {_LONGEST_PIECE}"
            )
        for cut in range(1, len(text)):
            left, right = text[:cut], text[cut:]
            if left in scores and right in scores:
                rank = (-score, order[text], order[left], order[right], (left, right))
                ranked.append(rank)
    ranked.sort()
    return [pair for *_, pair in ranked]


def from_byte_level(
    tokens: Sequence[str], merges: Iterable[str], added: Sequence[AddedToken], pre: str
) -> str:
    """The JSON of a byte-level BPE model.

    Args:
        tokens: vocabulary by id, one character of GPT-2's alphabet per byte.
        merges: pairs as ``"left right"``, best first.
        added: control and user-defined tokens.
        pre: a key of :data:`PRE_TOKENIZERS`.

    Raises:
        TokenizerError: ``pre`` is not known, or a merge is not a pair of tokens.
    """
    if pre not in PRE_TOKENIZERS:
        raise TokenizerError(
            f"the tokenizer cuts text by the rule '{pre[:60]}'",
            f"one of {', '.join(PRE_TOKENIZERS)}",
        )
    vocabulary: dict[str, int] = {}
    for index, token in enumerate(tokens):
        vocabulary.setdefault(token, index)
    pairs: list[tuple[str, str]] = []
    for merge in merges:
        left, _, right = merge.partition(" ")
        if left not in vocabulary or right not in vocabulary or left + right not in vocabulary:
            raise TokenizerError(f"merge '{merge[:60]}' names a token that does not exist")
        pairs.append((left, right))
    return _assemble(
        vocabulary,
        pairs,
        [token for token in added if vocabulary.get(token.text) == token.id],
        normalizer=None,
        pre_tokenizer=PRE_TOKENIZERS[pre],
        decoder=_GPT2,
        unk_token=None,
        byte_fallback=False,
        ignore_merges=pre == "llama-bpe",
    )


def _assemble(
    vocabulary: dict[str, int],
    merges: list[tuple[str, str]],
    added: list[AddedToken],
    *,
    normalizer: dict[str, Any] | None,
    pre_tokenizer: dict[str, Any] | None,
    decoder: dict[str, Any],
    unk_token: str | None,
    byte_fallback: bool,
    ignore_merges: bool = False,
) -> str:
    tree = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {
                "id": token.id,
                "content": token.text,
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                # A user-defined run of ▁ must be looked for after spaces became ▁.
                "normalized": "▁" in token.text,
                "special": token.special,
            }
            for token in added
        ],
        "normalizer": normalizer,
        "pre_tokenizer": pre_tokenizer,
        "post_processor": None,
        "decoder": decoder,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": unk_token,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": True,
            "byte_fallback": byte_fallback,
            "ignore_merges": ignore_merges,
            "vocab": vocabulary,
            "merges": merges,
        },
    }
    return json.dumps(tree, ensure_ascii=False, separators=(",", ":"))


def finish(
    source: str,
    *,
    vocab_size: int,
    chat_template: str | None,
    add_bos: bool,
    bos_id: int | None,
    eos_ids: Iterable[int],
) -> TokenizerFiles:
    """Check a tokenizer against its model and put everything known of it together.

    Raises:
        TokenizerError: it cannot be used, has more tokens than the model embeds, or
            names a start or end token outside of the vocabulary.
    """
    pieces = derive_token_bytes(source)
    if len(pieces) > vocab_size:
        raise TokenizerError(
            f"the tokenizer has ids up to {len(pieces) - 1}",
            f"ids below the model's vocab_size of {vocab_size}",
            "check that tokenizer and model belong together",
        )
    ends = tuple(dict.fromkeys(eos_ids))
    outside = [i for i in (*ends, *(() if bos_id is None else (bos_id,))) if i >= vocab_size]
    if outside:
        raise TokenizerError(
            f"token {outside[0]} starts or ends texts",
            f"ids below the model's vocab_size of {vocab_size}",
        )
    # An embedding is often padded to a round number of rows, which stand for no text.
    pieces += (b"",) * (vocab_size - len(pieces))
    return TokenizerFiles(
        json=source,
        token_bytes=pieces,
        special_ids=special_ids(source),
        chat_template=chat_template,
        add_bos=add_bos and bos_id is not None,
        bos_id=bos_id,
        eos_ids=ends,
    )
