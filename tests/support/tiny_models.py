"""Tiny random checkpoints with the true structure of the models that ArkInfer runs.

Every file is a function of its arguments alone, so two calls with the same
arguments write the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

DType = Literal["f32", "f16", "bf16"]
Tensors = dict[str, NDArray[Any]]

KINDS = ("minicpm4-8b", "minicpm4.1-8b", "minicpm4-0.5b", "llama", "llama-tied")

CHAT_TEMPLATE = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\\n'"
    " + message['content'] + '<|im_end|>' + '\\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)

# The released sparse_config of the MiniCPM4 README.
RELEASED_SPARSE: dict[str, Any] = {
    "kernel_size": 32,
    "kernel_stride": 16,
    "init_blocks": 1,
    "block_size": 64,
    "window_size": 2048,
    "topk": 64,
    "use_nope": False,
    "dense_len": 8192,
}

# The same shape small enough to be sparse after a hundred tokens: 1 + 2 + 2 blocks of 16.
SMALL_SPARSE: dict[str, Any] = {
    "kernel_size": 8,
    "kernel_stride": 4,
    "init_blocks": 1,
    "block_size": 16,
    "window_size": 32,
    "topk": 3,
    "use_nope": False,
    "dense_len": 64,
}

# Eight samples of the LongRoPE factors that each model ships (short equals long).
_FACTORS_8B = (0.9978, 1.1243301, 1.4426259, 2.4815363, 5.2684819, 13.902258, 26.007284, 30.193382)
_FACTORS_05B = (1.0004361, 1.504021, 3.638997, 8.527148, 18.69317, 36.168827, 46.04963, 49.853386)
_SCALE_41 = 2.065212696835719

_DTYPES: dict[str, tuple[str, str, Any]] = {
    "f32": ("F32", "float32", np.dtype(np.float32)),
    "f16": ("F16", "float16", np.dtype(np.float16)),
    "bf16": ("BF16", "bfloat16", np.dtype(ml_dtypes.bfloat16)),
}


@dataclass(frozen=True)
class _Shape:
    heads: int
    kv_heads: int
    hidden: int
    eps: float
    tied: bool
    positions: int
    mup_ratio: int  # hidden_size / dim_model_base; 0 for models without muP


_SHAPES: dict[str, _Shape] = {
    "minicpm4-8b": _Shape(32, 2, 256, 1e-6, False, 32768, 16),
    "minicpm4.1-8b": _Shape(32, 2, 256, 1e-6, False, 65536, 16),
    "minicpm4-0.5b": _Shape(16, 2, 128, 1e-5, True, 32768, 4),
    "llama": _Shape(8, 4, 128, 1e-5, False, 4096, 0),
    "llama-tied": _Shape(8, 4, 128, 1e-5, True, 4096, 0),
}


def _rope_factors(kind: str, half: int) -> list[float]:
    """``half`` factors that cover the range of the shipped array."""
    base = np.array(_FACTORS_05B if kind == "minicpm4-0.5b" else _FACTORS_8B)
    if kind == "minicpm4.1-8b":
        base = 0.9982316 + _SCALE_41 * (base - base[0])
    at = np.linspace(0, len(base) - 1, half)
    return [round(float(v), 7) for v in np.interp(at, np.arange(len(base)), base)]


def tiny_config(
    kind: str,
    *,
    layers: int = 2,
    hidden: int | None = None,
    vocab: int = 320,
    dtype: DType = "f32",
    sparse: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The ``config.json`` of a tiny model of ``kind``."""
    shape = _SHAPES[kind]
    hidden = hidden or shape.hidden
    head_dim = hidden // shape.heads
    mup = shape.mup_ratio > 0
    config: dict[str, Any] = {
        "architectures": ["MiniCPMForCausalLM" if mup else "LlamaForCausalLM"],
        "model_type": "minicpm" if mup else "llama",
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "intermediate_size": 2 * hidden,
        "vocab_size": vocab,
        "rms_norm_eps": shape.eps,
        "rope_theta": 10000.0,
        "max_position_embeddings": shape.positions,
        "tie_word_embeddings": shape.tied,
        "hidden_act": "silu",
        "attention_bias": False,
        "bos_token_id": 1,
        "eos_token_id": [2, vocab - 2] if mup else 2,
        "torch_dtype": _DTYPES[dtype][1],
    }
    if mup:
        factors = _rope_factors(kind, head_dim // 2)
        config |= {
            "scale_emb": 12,
            "scale_depth": 1.4,
            "dim_model_base": hidden // shape.mup_ratio,
            "mup_denominator": 32,
            "rope_scaling": {
                "rope_type": "longrope",
                "long_factor": factors,
                "short_factor": factors,
                "original_max_position_embeddings": shape.positions,
            },
        }
    if sparse is not None:
        config["sparse_config"] = dict(sparse)
    return config


def tiny_tensors(config: Mapping[str, Any], seed: int = 0, dtype: DType = "f32") -> Tensors:
    """Random weights for ``config`` by upstream name, in the order of the model."""
    rng = np.random.default_rng(seed)
    hidden, ffn = int(config["hidden_size"]), int(config["intermediate_size"])
    heads, kv_heads = int(config["num_attention_heads"]), int(config["num_key_value_heads"])
    head_dim = int(config.get("head_dim", hidden // heads))
    vocab = int(config["vocab_size"])
    tensors: Tensors = {}

    def normal(name: str, shape: tuple[int, ...], std: float, mean: float = 0.0) -> None:
        values = rng.standard_normal(shape, dtype=np.float32) * np.float32(std) + np.float32(mean)
        tensors[name] = values.astype(_DTYPES[dtype][2])

    def linear(name: str, outputs: int, inputs: int, gain: float = 1.0) -> None:
        normal(name, (outputs, inputs), gain / inputs**0.5)

    embedding_scale = float(config.get("scale_emb", 1.0))
    normal("model.embed_tokens.weight", (vocab, hidden), 1.0 / embedding_scale)
    for layer in range(int(config["num_hidden_layers"])):
        prefix = f"model.layers.{layer}."
        normal(prefix + "input_layernorm.weight", (hidden,), 0.1, 1.0)
        # A gain of 2 gives attention something to choose: scores with a spread of about 4.
        linear(prefix + "self_attn.q_proj.weight", heads * head_dim, hidden, 2.0)
        linear(prefix + "self_attn.k_proj.weight", kv_heads * head_dim, hidden, 2.0)
        linear(prefix + "self_attn.v_proj.weight", kv_heads * head_dim, hidden)
        linear(prefix + "self_attn.o_proj.weight", hidden, heads * head_dim)
        normal(prefix + "post_attention_layernorm.weight", (hidden,), 0.1, 1.0)
        linear(prefix + "mlp.gate_proj.weight", ffn, hidden)
        linear(prefix + "mlp.up_proj.weight", ffn, hidden)
        linear(prefix + "mlp.down_proj.weight", hidden, ffn)
    normal("model.norm.weight", (hidden,), 0.1, 1.0)
    if not config["tie_word_embeddings"]:
        ratio = hidden / float(config.get("dim_model_base", hidden))
        linear("lm_head.weight", vocab, hidden, 2.0 * ratio)
    return tensors


def write_safetensors(path: Path, tensors: Mapping[str, NDArray[Any]]) -> None:
    """Write one safetensors file."""
    names = {np.dtype(t[2]): t[0] for t in _DTYPES.values()}
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, values in tensors.items():
        end = offset + values.nbytes
        header[name] = {
            "dtype": names[values.dtype],
            "shape": list(values.shape),
            "data_offsets": [offset, end],
        }
        offset = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for values in tensors.values():
            file.write(np.ascontiguousarray(values).tobytes())


def _write_shards(folder: Path, tensors: Tensors, shards: int) -> None:
    if shards == 1:
        write_safetensors(folder / "model.safetensors", tensors)
        return
    names = list(tensors)
    weight_map: dict[str, str] = {}
    for index in range(shards):
        part = names[index::shards]
        file = f"model-{index + 1:05d}-of-{shards:05d}.safetensors"
        write_safetensors(folder / file, {name: tensors[name] for name in part})
        weight_map |= dict.fromkeys(part, file)
    total = sum(values.nbytes for values in tensors.values())
    index_json = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index_json, indent=1))


def tiny_vocabulary(vocab: int = 320) -> tuple[dict[str, int], list[list[str]]]:
    """A byte-fallback BPE vocabulary of ``vocab`` entries and its merges.

    0 ``<unk>``, 1 ``<s>``, 2 ``</s>``, then 256 byte tokens, characters, merged
    pieces, and ``<|im_end|>``, ``<|im_start|>`` last. At least 300 entries.
    """
    if vocab < 300:
        raise ValueError(f"vocab must be at least 300, not {vocab}")
    characters = ["▁", *"etaoinshrdlucmfwypvbgkjqxz", *".,!?'0123456789", "\n", "你", "好"]
    merges = [["t", "h"], ["th", "e"], ["▁", "the"], ["i", "n"], ["a", "n"], ["▁", "a"]]
    merges += [["e", "r"], ["o", "n"], ["r", "e"], ["h", "e"], ["l", "l"], ["he", "ll"]]
    tokens = ["<unk>", "<s>", "</s>"] + [f"<0x{byte:02X}>" for byte in range(256)]
    room = vocab - len(tokens) - 2
    tokens += characters[:room]
    merges = merges[: max(0, room - len(characters))]
    tokens += [left + right for left, right in merges]
    tokens += [f"<reserved_{index}>" for index in range(vocab - 2 - len(tokens))]
    tokens += ["<|im_end|>", "<|im_start|>"]
    return {token: index for index, token in enumerate(tokens)}, merges


def tiny_tokenizer(vocab: int = 320) -> dict[str, Any]:
    """A ``tokenizer.json`` with the structure of MiniCPM's: BPE, byte fallback, ``▁``."""
    table, merges = tiny_vocabulary(vocab)
    specials = ["<unk>", "<s>", "</s>", "<|im_end|>", "<|im_start|>"]
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {"id": table[token], "content": token, "special": True} | flags for token in specials
        ],
        "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
        "pre_tokenizer": None,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [
                {"SpecialToken": {"id": "<s>", "type_id": 0}},
                {"Sequence": {"id": "A", "type_id": 0}},
            ],
            "pair": [
                {"SpecialToken": {"id": "<s>", "type_id": 0}},
                {"Sequence": {"id": "A", "type_id": 0}},
                {"SpecialToken": {"id": "<s>", "type_id": 1}},
                {"Sequence": {"id": "B", "type_id": 1}},
            ],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}},
        },
        "decoder": {
            "type": "Sequence",
            "decoders": [
                {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
                {"type": "ByteFallback"},
                {"type": "Fuse"},
            ],
        },
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": "<unk>",
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": True,
            "byte_fallback": True,
            "ignore_merges": False,
            "vocab": table,
            "merges": merges,
        },
    }


def write_tiny_hf(
    path: Path,
    kind: str,
    *,
    seed: int = 0,
    dtype: DType = "f32",
    sparse: dict[str, Any] | None = None,
    shards: int = 1,
    layers: int = 2,
    hidden: int | None = None,
    vocab: int = 320,
    overrides: Mapping[str, Any] | None = None,
) -> Path:
    """Write a Hugging Face folder of a tiny random model and return ``path``.

    Args:
        path: the folder to make.
        kind: one of :data:`KINDS`.
        seed: of the weights.
        dtype: of all tensors.
        sparse: put into config.json as ``sparse_config``
            (see :data:`RELEASED_SPARSE`, :data:`SMALL_SPARSE`).
        shards: number of safetensors files.
        layers: number of decoder layers.
        hidden: hidden size, a multiple of twice the number of heads.
        vocab: vocabulary size, at least 300.
        overrides: further keys of config.json, set last; the weights follow them.
    """
    config = tiny_config(
        kind, layers=layers, hidden=hidden, vocab=vocab, dtype=dtype, sparse=sparse
    )
    config |= dict(overrides or {})
    path.mkdir(parents=True, exist_ok=True)
    (path / "config.json").write_text(json.dumps(config, indent=1))
    (path / "tokenizer.json").write_text(
        json.dumps(tiny_tokenizer(vocab), ensure_ascii=False), encoding="utf-8"
    )
    tokenizer_config = {
        "add_bos_token": True,
        "add_eos_token": False,
        "bos_token": "<s>",
        "eos_token": "<|im_end|>",
        "unk_token": "<unk>",
        "chat_template": CHAT_TEMPLATE,
        "tokenizer_class": "LlamaTokenizer",
    }
    (path / "tokenizer_config.json").write_text(json.dumps(tokenizer_config, indent=1))
    generation = {
        "bos_token_id": 1,
        "eos_token_id": config["eos_token_id"],
        "do_sample": True,
        "temperature": 0.8,
        "top_p": 0.8,
    }
    (path / "generation_config.json").write_text(json.dumps(generation, indent=1))
    _write_shards(path, tiny_tensors(config, seed, dtype), shards)
    return path
