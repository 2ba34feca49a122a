"""The attention of one decoder layer: dense, or block-sparse (InfLLM v2)."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from arkinfer.config import ModelConfig, SparseConfig
from arkinfer.graph.builder import DOMAIN, Builder


@dataclass(frozen=True)
class Cache:
    """One layer's keys and values as they enter the graph: [1, kv_heads, past, head_dim]."""

    key: ir.Value
    value: ir.Value


def dense_attention(
    b: Builder,
    config: ModelConfig,
    layer: int,
    q: ir.Value,
    k: ir.Value,
    v: ir.Value,
    cache: Cache,
) -> tuple[ir.Value, ir.Value, ir.Value]:
    """Causal attention. Returns the output [1, tokens, heads * head_dim] and the new cache."""
    attended, key, value = b.op_n(
        "Attention",
        3,
        q,
        k,
        v,
        None,
        cache.key,
        cache.value,
        names=[f"layers.{layer}.attention", f"present_key.{layer}", f"present_value.{layer}"],
        q_num_heads=config.num_heads,
        kv_num_heads=config.num_kv_heads,
        is_causal=1,
        scale=config.head_dim**-0.5,
    )
    return attended, key, value


def sparse_attention(
    b: Builder,
    config: ModelConfig,
    sparse: SparseConfig,
    layer: int,
    q: ir.Value,
    k: ir.Value,
    v: ir.Value,
    cache: Cache,
    past_length: ir.Value,
) -> tuple[ir.Value, ir.Value, ir.Value]:
    """Attention over selected blocks. Returns the same as :func:`dense_attention`."""
    scale = config.head_dim**-0.5
    name = f"layers.{layer}"
    key = _append(b, config, cache.key, k, f"present_key.{layer}")
    value = _append(b, config, cache.value, v, f"present_value.{layer}")
    fine = _compress(b, key, f"{name}.fine", sparse.kernel_size, sparse.kernel_stride)
    coarse = _compress(b, key, f"{name}.coarse", 4 * sparse.kernel_size, 4 * sparse.kernel_stride)
    blocks = b.op(
        "SelectBlocks",
        q,
        fine,
        coarse,
        past_length,
        name=f"{name}.blocks",
        domain=DOMAIN,
        block_size=sparse.block_size,
        kernel_size=sparse.kernel_size,
        kernel_stride=sparse.kernel_stride,
        init_blocks=sparse.init_blocks,
        local_blocks=sparse.local_blocks,
        topk=sparse.topk,
        dense_len=sparse.dense_len,
        generation=sparse.generation,
        lse=sparse.lse,
        scale=scale,
    )
    attended = b.op(
        "BlockSparseAttention",
        q,
        key,
        value,
        blocks,
        name=f"{name}.attention",
        domain=DOMAIN,
        block_size=sparse.block_size,
        scale=scale,
    )
    return attended, key, value


def _append(b: Builder, config: ModelConfig, past: ir.Value, new: ir.Value, name: str) -> ir.Value:
    """Concatenate [1, tokens, kv_heads * head_dim] to a cache along its tokens."""
    split = b.op("Reshape", new, b.ints(1, -1, config.num_kv_heads, config.head_dim))
    by_head = b.op("Transpose", split, perm=[0, 2, 1, 3])
    return b.op("Concat", past, by_head, name=name, axis=2)


def _compress(b: Builder, key: ir.Value, name: str, size: int, stride: int) -> ir.Value:
    return b.op(
        "CompressKeys", key, name=name, domain=DOMAIN, kernel_size=size, kernel_stride=stride
    )
