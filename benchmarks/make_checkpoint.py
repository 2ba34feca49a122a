"""Write a checkpoint of a real model's shape with random bf16 weights, in little memory.

    python benchmarks/make_checkpoint.py OUT --layers 32 --shape minicpm4.1-8b

For measurements of compiling and running at full size: the numbers mean
nothing, the bytes are as many. Weights are normal with the standard deviation
1/sqrt(inputs), so that activations stay finite through all layers.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

SHARD_BYTES = 4 << 30
BLOCK_ELEMENTS = 8 << 20


@dataclass(frozen=True)
class Shape:
    """What distinguishes the members of the family; the rest of the config is common."""

    model_type: str
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn: int
    vocab: int
    positions: int
    tied: bool
    eps: float


SHAPES = {
    "minicpm4-8b": Shape("minicpm", 4096, 32, 32, 2, 128, 16384, 73448, 32768, False, 1e-6),
    "minicpm4.1-8b": Shape("minicpm", 4096, 32, 32, 2, 128, 16384, 73448, 65536, False, 1e-6),
    "minicpm4-0.5b": Shape("minicpm", 1024, 24, 16, 2, 64, 4096, 73448, 32768, True, 1e-5),
    "llama": Shape("llama", 2048, 16, 32, 8, 64, 8192, 32000, 4096, False, 1e-5),
}


def config_of(shape: Shape, layers: int, sparse: bool) -> dict[str, Any]:
    """``config.json`` as upstream writes it."""
    config: dict[str, Any] = {
        "architectures": [
            "MiniCPMForCausalLM" if shape.model_type == "minicpm" else "LlamaForCausalLM"
        ],
        "model_type": shape.model_type,
        "hidden_size": shape.hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head_dim,
        "intermediate_size": shape.ffn,
        "vocab_size": shape.vocab,
        "max_position_embeddings": shape.positions,
        "rms_norm_eps": shape.eps,
        "rope_theta": 10000.0,
        "tie_word_embeddings": shape.tied,
        "hidden_act": "silu",
        "attention_bias": False,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "torch_dtype": "bfloat16",
    }
    if shape.model_type == "minicpm":
        # A smooth ramp stands in for the released factors: same length, same range.
        ramp = np.linspace(-4.0, 4.0, shape.head_dim // 2)
        factors = [round(float(v), 6) for v in 1.0 + 30.0 / (1.0 + np.exp(-ramp))]
        config |= {
            "scale_emb": 12,
            "scale_depth": 1.4,
            "dim_model_base": 256,
            "rope_scaling": {
                "rope_type": "longrope",
                "short_factor": factors,
                "long_factor": factors,
                "original_max_position_embeddings": shape.positions,
            },
        }
    if sparse:
        config["sparse_config"] = {
            "kernel_size": 32,
            "kernel_stride": 16,
            "init_blocks": 1,
            "block_size": 64,
            "window_size": 2048,
            "topk": 64,
            "use_nope": False,
            "dense_len": 8192,
        }
    return config


def tensors_of(shape: Shape, layers: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names and shapes in the order of the model."""
    query, key = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    yield "model.embed_tokens.weight", (shape.vocab, shape.hidden)
    for layer in range(layers):
        prefix = f"model.layers.{layer}."
        yield prefix + "input_layernorm.weight", (shape.hidden,)
        yield prefix + "self_attn.q_proj.weight", (query, shape.hidden)
        yield prefix + "self_attn.k_proj.weight", (key, shape.hidden)
        yield prefix + "self_attn.v_proj.weight", (key, shape.hidden)
        yield prefix + "self_attn.o_proj.weight", (shape.hidden, query)
        yield prefix + "post_attention_layernorm.weight", (shape.hidden,)
        yield prefix + "mlp.gate_proj.weight", (shape.ffn, shape.hidden)
        yield prefix + "mlp.up_proj.weight", (shape.ffn, shape.hidden)
        yield prefix + "mlp.down_proj.weight", (shape.hidden, shape.ffn)
    yield "model.norm.weight", (shape.hidden,)
    if not shape.tied:
        yield "lm_head.weight", (shape.vocab, shape.hidden)


def byte_tokenizer(vocab: int) -> dict[str, Any]:
    """A byte-level BPE tokenizer without merges: 256 byte tokens from id 3 on."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = {byte: chr(byte) for byte in printable}
    for byte in range(256):
        if byte not in letters:
            letters[byte] = chr(256 + len(letters) - len(printable))
    table = {"<unk>": 0, "<s>": 1, "</s>": 2}
    table |= {letters[byte]: 3 + byte for byte in range(256)}
    table |= {f"<reserved_{i}>": i for i in range(259, vocab)}
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    byte_level = {"type": "ByteLevel", "trim_offsets": True, "use_regex": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {"id": table[name], "content": name, "special": True} | flags
            for name in ("<unk>", "<s>", "</s>")
        ],
        "normalizer": None,
        "pre_tokenizer": byte_level | {"add_prefix_space": False},
        "post_processor": None,
        "decoder": byte_level | {"add_prefix_space": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "vocab": table,
            "merges": [],
        },
    }


def write_random(file: BinaryIO, shape: tuple[int, ...], rng: np.random.Generator) -> None:
    """Append one bf16 tensor: about 1 for norms, normal / sqrt(inputs) for matrices."""
    count = math.prod(shape)
    mean, deviation = (1.0, 0.05) if len(shape) == 1 else (0.0, shape[-1] ** -0.5)
    for start in range(0, count, BLOCK_ELEMENTS):
        size = min(BLOCK_ELEMENTS, count - start)
        values = rng.standard_normal(size, dtype=np.float32)
        values *= np.float32(deviation)
        values += np.float32(mean)
        # The upper half of a float32 is a bfloat16, rounded towards zero.
        file.write((values.view(np.uint32) >> 16).astype("<u2").tobytes())


def write_shards(out: Path, tensors: list[tuple[str, tuple[int, ...]]], seed: int) -> int:
    """Write the safetensors files and their index; gives the total bytes."""
    shards: list[list[tuple[str, tuple[int, ...]]]] = [[]]
    used = 0
    for name, shape in tensors:
        size = 2 * math.prod(shape)
        if used + size > SHARD_BYTES and shards[-1]:
            shards.append([])
            used = 0
        shards[-1].append((name, shape))
        used += size
    rng = np.random.default_rng(seed)
    total = sum(2 * math.prod(shape) for _, shape in tensors)
    weight_map: dict[str, str] = {}
    written = 0
    for index, shard in enumerate(shards, 1):
        file_name = f"model-{index:05d}-of-{len(shards):05d}.safetensors"
        header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
        offset = 0
        for name, shape in shard:
            end = offset + 2 * math.prod(shape)
            header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [offset, end]}
            weight_map[name] = file_name
            offset = end
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        with open(out / file_name, "wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            for name, shape in shard:
                write_random(file, shape, rng)
                written += 2 * math.prod(shape)
                print(f"\r{100 * written // total:3d} %  {name:60s}", end="", file=sys.stderr)
    index_json = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (out / "model.safetensors.index.json").write_text(json.dumps(index_json, indent=1))
    print(file=sys.stderr)
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=Path, help="the folder to make")
    parser.add_argument("--shape", choices=sorted(SHAPES), default="minicpm4.1-8b")
    parser.add_argument("--layers", type=int, help="fewer layers than the real model has")
    parser.add_argument("--vocab", type=int, help="a smaller vocabulary, at least 300")
    parser.add_argument("--sparse", action="store_true", help="add the released sparse_config")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    shape = SHAPES[arguments.shape]
    if arguments.vocab is not None:
        if arguments.vocab < 300:
            parser.error("--vocab must be at least 300")
        shape = Shape(**{**shape.__dict__, "vocab": arguments.vocab})
    layers = arguments.layers or shape.layers
    if layers < 1:
        parser.error("--layers must be at least 1")
    out: Path = arguments.out
    out.mkdir(parents=True, exist_ok=True)
    config = config_of(shape, layers, arguments.sparse)
    (out / "config.json").write_text(json.dumps(config, indent=1))
    (out / "tokenizer.json").write_text(json.dumps(byte_tokenizer(shape.vocab)))
    settings = {"add_bos_token": True, "bos_token": "<s>", "eos_token": "</s>"}
    (out / "tokenizer_config.json").write_text(json.dumps(settings, indent=1))
    total = write_shards(out, list(tensors_of(shape, layers)), arguments.seed)
    print(f"{out}: {total / 1e9:.2f} GB of random bf16 weights, {layers} layers")


if __name__ == "__main__":
    main()
