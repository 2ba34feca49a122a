"""Bundles of a shape with random weights, without a checkpoint on disk."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from arkinfer import compiler
from arkinfer.checkpoint import Checkpoint, TensorInfo
from arkinfer.config import ModelConfig, RopeConfig, SparseConfig
from arkinfer.quantize import policy
from arkinfer.quantize.schemes import GroupScheme, QuantizedTensor
from benchmarks.harness.files import ROOT, make_once, remove, sources_digest
from benchmarks.harness.shapes import SHAPES, Shape
from benchmarks.models.random_weights import random_bytes, scale

# What decides the bytes of a bundle; when it changes, bundles in the cache are out of date.
COMPILER = tuple(
    ROOT / "arkinfer" / name
    for name in ("backends", "graph", "models", "passes", "quantize", "compiler.py", "manifest.py")
)
_POSITIONS = 131072


def bundle(cache: Path, shape_name: str, quant: str, context: int, dense: bool = False) -> Path:
    """A bundle in the cache; made again when the code that makes bundles has changed.

    Args:
        quant: as ``arkinfer compile --quant`` takes it, for the layers; the head has 8 bits.
        dense: leave the sparse attention out.
    """
    stem = f"{shape_name}-{quant}-{context}{'-dense' if dense else ''}-"
    path = cache / f"{stem}{sources_digest(*COMPILER)}.ark"
    if not path.exists():
        for old in cache.glob(f"{stem}*.ark*"):
            remove(old)
    shape = SHAPES[shape_name]

    def make(temporary: Path) -> None:
        compiler.compile_checkpoint(
            checkpoint(shape, quant),
            target="cpu",
            quant=quant,
            context=context,
            output=temporary,
            sparse="off" if dense or not shape.sparse else "on",
        )

    return make_once(path, make)


def checkpoint(shape: Shape, quant: str) -> Checkpoint:
    """A checkpoint whose matrices already are in the scheme that ``quant`` names."""
    tensors = {info.name: info for info in _tensors(shape, quant)}
    return Checkpoint(
        path=Path(f"random-{shape.name}"),
        format="random",
        config=config(shape),
        tensors=tensors,
        reader=_Random(tensors),
        tokenizer=None,
        generation={},
    )


def config(shape: Shape) -> ModelConfig:
    """The normal form of the shape's ``config.json``."""
    factors = tuple(np.linspace(1.0, 32.0, shape.head_dim // 2).tolist())
    rope = RopeConfig(10000.0, factors, factors, _POSITIONS // 2) if shape.sparse else None
    return ModelConfig(
        model_type="minicpm" if shape.sparse else "llama",
        hidden_size=shape.hidden,
        num_layers=shape.layers,
        num_heads=shape.heads,
        num_kv_heads=shape.kv_heads,
        head_dim=shape.head_dim,
        intermediate_size=shape.ffn,
        vocab_size=shape.vocab,
        rms_norm_eps=1e-6,
        rope=rope or RopeConfig(10000.0),
        max_position=_POSITIONS,
        tie_word_embeddings=False,
        sparse=SparseConfig() if shape.sparse else None,
        eos_ids=(2,),
    )


def _tensors(shape: Shape, quant: str) -> list[TensorInfo]:
    query, key = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    asked = policy.parse(quant)
    if isinstance(asked, str):
        raise ValueError(f"quant is {quant!r}, not a scheme")
    # A group of 0 inputs stands for the whole row; the head of ternary models has 8 bits too.
    head = GroupScheme(8, asked.group_size or 128)
    found = [
        TensorInfo("model.embed_tokens.weight", (shape.vocab, shape.hidden), "f16"),
        TensorInfo("model.norm.weight", (shape.hidden,), "f32"),
        TensorInfo("lm_head.weight", (shape.vocab, shape.hidden), head),
    ]
    for layer in range(shape.layers):
        prefix = f"model.layers.{layer}."
        for norm in ("input_layernorm", "post_attention_layernorm"):
            found.append(TensorInfo(f"{prefix}{norm}.weight", (shape.hidden,), "f32"))
        for name, outputs, inputs in (
            ("self_attn.q_proj", query, shape.hidden),
            ("self_attn.k_proj", key, shape.hidden),
            ("self_attn.v_proj", key, shape.hidden),
            ("self_attn.o_proj", shape.hidden, query),
            ("mlp.gate_proj", shape.ffn, shape.hidden),
            ("mlp.up_proj", shape.ffn, shape.hidden),
            ("mlp.down_proj", shape.hidden, shape.ffn),
        ):
            scheme = dataclasses.replace(asked, group_size=asked.group_size or inputs)
            found.append(TensorInfo(f"{prefix}{name}.weight", (outputs, inputs), scheme))
    return found


class _Random:
    """Reads rows of tensors that nobody wrote."""

    def __init__(self, tensors: dict[str, TensorInfo]) -> None:
        self._tensors = tensors

    def read_float(self, name: str, rows: slice) -> NDArray[Any]:
        shape = self._tensors[name].shape
        if len(shape) == 1:
            return np.ones(shape, np.float32)[rows]
        start, stop, _ = rows.indices(shape[0])
        codes = random_bytes(name, start * shape[1], (stop - start) * shape[1])
        values = (codes.astype(np.float16) - np.float16(127.5)) / np.float16(74)
        return values.reshape(stop - start, shape[1])

    def read_quantized(self, name: str, rows: slice) -> QuantizedTensor:
        info = self._tensors[name]
        scheme = info.storage
        assert not isinstance(scheme, str)
        outputs, inputs = info.shape
        start, stop, _ = rows.indices(outputs)
        count = stop - start
        levels = 3 if scheme.bits == 2 else 1 << scheme.bits
        codes = random_bytes(name, start * inputs, count * inputs) % np.uint8(min(levels, 255))
        groups = (count, inputs // scheme.group_size)
        scales = np.full(groups, scale(inputs, levels), np.float32)
        return QuantizedTensor(scheme, codes.reshape(count, inputs), scales)
