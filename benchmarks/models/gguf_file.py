"""GGUF files of a shape with random blocks, for llama.cpp and for our own converter."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.harness.files import make_once
from benchmarks.harness.shapes import SHAPES, Shape
from benchmarks.models.random_weights import random_bytes, scale

# Block formats: weights, bytes, byte positions of fp16 scales, levels of a code.
_BLOCKS = {
    "Q4_0": (32, 18, 0, 16),
    "Q6_K": (256, 210, 208, 64 * 64),  # int8 scales of about 64 times the fp16 one
    "TQ2_0": (256, 66, 64, 3),
}
_ROWS_AT_ONCE = 1024


def gguf(cache: Path, shape_name: str, kind: str) -> Path:
    """A GGUF file in the cache whose layers are of ``kind`` (``"Q4_0"`` or ``"TQ2_0"``).

    As llama-quantize does it, the head is Q6_K and the embedding has the layers' type (Q4_0
    beside ternary layers).
    """
    shape = SHAPES[shape_name]
    return make_once(cache / f"{shape_name}-{kind}.gguf", lambda path: _write(path, shape, kind))


def _tensors(shape: Shape, kind: str) -> Iterator[tuple[str, tuple[int, ...], str]]:
    query, key = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    yield "token_embd.weight", (shape.vocab, shape.hidden), "Q4_0"
    yield "output_norm.weight", (shape.hidden,), "F32"
    yield "output.weight", (shape.vocab, shape.hidden), "Q6_K"
    for layer in range(shape.layers):
        prefix = f"blk.{layer}."
        yield prefix + "attn_norm.weight", (shape.hidden,), "F32"
        yield prefix + "attn_q.weight", (query, shape.hidden), kind
        yield prefix + "attn_k.weight", (key, shape.hidden), kind
        yield prefix + "attn_v.weight", (key, shape.hidden), kind
        yield prefix + "attn_output.weight", (shape.hidden, query), kind
        yield prefix + "ffn_norm.weight", (shape.hidden,), "F32"
        yield prefix + "ffn_gate.weight", (shape.ffn, shape.hidden), kind
        yield prefix + "ffn_up.weight", (shape.ffn, shape.hidden), kind
        yield prefix + "ffn_down.weight", (shape.hidden, shape.ffn), kind


def _write(path: Path, shape: Shape, kind: str) -> None:
    import gguf as format_

    writer = format_.GGUFWriter(path, "llama")
    writer.add_vocab_size(shape.vocab)
    writer.add_context_length(131072)
    writer.add_embedding_length(shape.hidden)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.ffn)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_rope_dimension_count(shape.head_dim)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_tokenizer_model("no_vocab")
    tensors = list(_tensors(shape, kind))
    for name, dims, type_ in tensors:
        quantized = format_.GGMLQuantizationType[type_]
        size = int(np.prod(dims)) * 4
        if type_ == "F32":
            writer.add_tensor_info(name, dims, np.dtype(np.float32), size)
            continue
        weights, block, _, _ = _BLOCKS[type_]
        if dims[1] % weights:
            raise ValueError(f"{name}: {dims[1]} inputs are no multiple of {weights}, {type_}'s")
        packed = (dims[0], dims[1] // weights * block)
        size = packed[0] * packed[1]
        writer.add_tensor_info(name, packed, np.dtype(np.uint8), size, quantized)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    assert writer.fout is not None
    file = writer.fout[0]
    for name, dims, type_ in tensors:
        writer.write_padding(file, file.tell())
        if type_ == "F32":
            file.write(np.ones(dims, np.float32).tobytes())
        else:
            for piece in _blocks(name, dims[0], dims[1], type_):
                file.write(piece.tobytes())
    writer.write_padding(file, file.tell())
    writer.close()


def _blocks(name: str, rows: int, inputs: int, type_: str) -> Iterator[NDArray[np.uint8]]:
    weights, block, at, levels = _BLOCKS[type_]
    number = np.array([scale(inputs, levels)], "<f2").view(np.uint8)
    row_bytes = inputs // weights * block
    for first in range(0, rows, _ROWS_AT_ONCE):
        count = min(_ROWS_AT_ONCE, rows - first)
        raw = random_bytes(name, first * row_bytes, count * row_bytes)
        raw = raw.reshape(-1, block).copy()
        if type_ == "TQ2_0":  # four codes of two bits, 3 of which is not one
            raw &= ~(raw & raw >> 1 & 0x55)
        raw[:, at : at + 2] = number
        yield raw
