"""Tiny GGUF files, written by the ``gguf`` package from the tiny Hugging Face models."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from numpy.typing import NDArray

from tests.support.tiny_models import CHAT_TEMPLATE, tiny_config, tiny_tensors, tiny_vocabulary

QTypes = gguf.GGMLQuantizationType


def interleave(weight: NDArray[Any], heads: int) -> NDArray[Any]:
    """Rows of queries or keys in GGUF's order: the two halves of each head alternate."""
    halves = weight.reshape(heads, 2, weight.shape[0] // heads // 2, *weight.shape[1:])
    return np.ascontiguousarray(halves.swapaxes(1, 2)).reshape(weight.shape)


def write_tiny_gguf(
    path: Path,
    kind: str,
    *,
    qtype: QTypes = QTypes.F32,
    seed: int = 0,
    layers: int = 2,
    vocab: int = 320,
    scales: bool = True,
    factors: bool = True,
    metadata: dict[str, Any] | None = None,
) -> Path:
    """Write the model of ``write_tiny_hf(kind, seed=seed)`` as one GGUF file.

    Args:
        path: the file.
        kind: see ``tests.support.tiny_models.KINDS``.
        qtype: of every matrix; vectors are float32.
        seed: of the weights.
        layers: number of decoder layers.
        vocab: vocabulary size.
        scales: store MiniCPM's three scales.
        factors: store the rope factors.
        metadata: further keys; None leaves a default key out.
    """
    config = tiny_config(kind, layers=layers, vocab=vocab)
    architecture = config["model_type"]
    writer = gguf.GGUFWriter(path, architecture)
    keys: dict[str, Any] = {
        "context_length": config["max_position_embeddings"],
        "embedding_length": config["hidden_size"],
        "block_count": layers,
        "feed_forward_length": config["intermediate_size"],
        "attention.head_count": config["num_attention_heads"],
        "attention.head_count_kv": config["num_key_value_heads"],
        "attention.layer_norm_rms_epsilon": config["rms_norm_eps"],
        "rope.dimension_count": config["hidden_size"] // config["num_attention_heads"],
        "rope.freq_base": config["rope_theta"],
        "vocab_size": vocab,
    }
    if architecture == "minicpm" and scales:
        keys |= {
            "embedding_scale": float(config["scale_emb"]),
            "residual_scale": config["scale_depth"] / math.sqrt(layers),
            "logit_scale": config["hidden_size"] / config["dim_model_base"],
        }
    pairs = {f"{architecture}.{key}": value for key, value in keys.items()}
    pairs |= _tokenizer(vocab) | (metadata or {})
    for key, value in pairs.items():
        _add(writer, key, value)
    names = gguf.get_tensor_name_map(getattr(gguf.MODEL_ARCH, architecture.upper()), layers)
    for name, weight in tiny_tensors(config, seed).items():
        if name.endswith("q_proj.weight"):
            weight = interleave(weight, config["num_attention_heads"])
        elif name.endswith("k_proj.weight"):
            weight = interleave(weight, config["num_key_value_heads"])
        stored = names.get_name(name, try_suffixes=(".weight",))
        assert stored is not None, name
        if weight.ndim == 1 or qtype == QTypes.F32:
            writer.add_tensor(stored, weight)
        else:
            writer.add_tensor(stored, gguf.quants.quantize(weight, qtype), raw_dtype=qtype)
    if architecture == "minicpm" and factors:
        array = np.array(config["rope_scaling"]["long_factor"], np.float32)
        writer.add_tensor("rope_factors_long.weight", array)
        writer.add_tensor("rope_factors_short.weight", array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _add(writer: gguf.GGUFWriter, key: str, value: Any) -> None:
    if value is None:
        return
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    else:
        writer.add_array(key, value)


def _tokenizer(vocab: int) -> dict[str, Any]:
    """The tiny vocabulary as a SentencePiece model: pieces, scores, types."""
    table, merges = tiny_vocabulary(vocab)
    tokens = list(table)
    types, scores = [], []
    rank = {left + right: index for index, (left, right) in enumerate(merges)}
    for index, token in enumerate(tokens):
        control = token in ("<s>", "</s>", "<|im_start|>", "<|im_end|>")
        types.append(2 if index == 0 else 3 if control else 6 if token.startswith("<0x") else 1)
        scores.append(-float(rank.get(token, len(merges) + index)))
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.scores": scores,
        "tokenizer.ggml.token_type": types,
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.chat_template": CHAT_TEMPLATE,
    }
