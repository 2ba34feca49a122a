"""The tokenizer inside a GGUF file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from arkinfer.checkpoint import TokenizerFiles
from arkinfer.config import ModelConfig
from arkinfer.converters import tokenizer_json
from arkinfer.converters.sentencepiece_model import Piece, PieceModel, PieceType
from arkinfer.converters.tokenizer_json import AddedToken
from arkinfer.errors import TokenizerError

# Control tokens that end an answer even where no metadata key says so.
_ENDS = frozenset({"<|im_end|>", "<|eot_id|>", "<|endoftext|>", "</s>"})


def read(metadata: Mapping[str, Any], config: ModelConfig) -> TokenizerFiles | None:
    """Read ``tokenizer.ggml.*``; None if the file has no tokenizer.

    Raises:
        TokenizerError: of a kind that is not read, or its arrays do not fit.
    """
    model = metadata.get("tokenizer.ggml.model")
    if model is None:
        return None
    tokens = _strings(metadata, "tokens")
    types = _types(metadata, len(tokens))
    pre = metadata.get("tokenizer.ggml.pre")
    if model == "gpt2":
        added = [
            AddedToken(index, tokens[index], types[index] != PieceType.USER_DEFINED)
            for index in range(len(tokens))
            if tokens[index]
            and types[index] in (PieceType.CONTROL, PieceType.UNKNOWN, PieceType.USER_DEFINED)
        ]
        source = tokenizer_json.from_byte_level(
            tokens, _strings(metadata, "merges"), added, str(pre or "default")
        )
    elif model == "llama":
        source = tokenizer_json.from_pieces(_pieces(metadata, tokens, types))
    else:
        raise TokenizerError(
            f"the GGUF file has a tokenizer of the kind '{str(model)[:60]}'", "gpt2 or llama"
        )
    add_bos = metadata.get("tokenizer.ggml.add_bos_token")
    if not isinstance(add_bos, bool):
        add_bos = model == "llama" or pre == "llama-bpe"
    ends = [
        index
        for index, token in enumerate(tokens)
        if token in _ENDS and types[index] == PieceType.CONTROL
    ]
    template = metadata.get("tokenizer.chat_template")
    return tokenizer_json.finish(
        source,
        vocab_size=config.vocab_size,
        chat_template=template if isinstance(template, str) else None,
        add_bos=add_bos,
        bos_id=config.bos_id,
        eos_ids=(*config.eos_ids, *ends),
    )


def _strings(metadata: Mapping[str, Any], name: str) -> list[str]:
    values = metadata.get(f"tokenizer.ggml.{name}")
    if not isinstance(values, list) or not values:
        raise TokenizerError(f"the GGUF file has no tokenizer.ggml.{name}", "a list of strings")
    return values


def _types(metadata: Mapping[str, Any], count: int) -> list[int]:
    values = metadata.get("tokenizer.ggml.token_type")
    if values is None:
        return [int(PieceType.NORMAL)] * count
    if not isinstance(values, np.ndarray) or values.shape != (count,):
        raise TokenizerError("tokenizer.ggml.token_type does not fit", f"{count} numbers")
    return [int(value) for value in values.astype(np.int64).tolist()]


def _pieces(metadata: Mapping[str, Any], tokens: list[str], types: list[int]) -> PieceModel:
    scores = metadata.get("tokenizer.ggml.scores")
    if not isinstance(scores, np.ndarray) or scores.shape != (len(tokens),):
        raise TokenizerError("tokenizer.ggml.scores does not fit", f"{len(tokens)} numbers")
    pieces = tuple(map(Piece, tokens, scores.astype(np.float64).tolist(), types))
    prefix = metadata.get("tokenizer.ggml.add_space_prefix")
    if not isinstance(prefix, bool):
        # Without the key SentencePiece's default holds, but MiniCPM4's model, which
        # early converters stored without it, was trained without a prefix.
        minicpm4 = metadata.get("general.architecture") == "minicpm" and "<|im_end|>" in tokens
        prefix = not minicpm4
    return PieceModel(pieces, prefix)
