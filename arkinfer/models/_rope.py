"""Cosines and sines of rotary embedding, computed in the graph from the past length."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from arkinfer.config import ModelConfig
from arkinfer.graph.builder import Builder


def rope_tables(
    b: Builder, config: ModelConfig, past: ir.Value, total: ir.Value
) -> tuple[ir.Value, ir.Value]:
    """Return cos and sin, FLOAT [1, tokens, head_dim / 2], of positions past .. total - 1.

    ``angle = position * inverse_frequency``, all in float32 as models are trained.
    LongRoPE divides the inverse frequencies by the short factors, or by the long ones
    once the sequence is longer than the original maximum. The values ``rope.short`` and
    ``rope.long`` hold the divided frequencies; equal factors make only the first.
    """
    rope = config.rope
    exponents = np.arange(0, config.head_dim, 2, dtype=np.float32) / np.float32(config.head_dim)
    periods = np.power(np.float32(rope.theta), exponents)
    frequencies = _frequencies(b, periods, rope.short_factors, "rope.short")
    if rope.original_max_position > 0 and rope.long_factors != rope.short_factors:
        long = _frequencies(b, periods, rope.long_factors, "rope.long")
        is_long = b.op("Greater", total, b.integer(rope.original_max_position))
        frequencies = b.op("Where", is_long, long, frequencies, name="rope.frequencies")
    positions = b.op("Cast", b.op("Range", past, total, b.integer(1)), to=int(ir.DataType.FLOAT))
    column = b.op("Unsqueeze", positions, b.ints(0, 2))
    angles = b.op("Mul", column, frequencies, name="rope.angles")
    if rope.attention_factor == 1.0:
        return b.op("Cos", angles, name="rope.cos"), b.op("Sin", angles, name="rope.sin")
    factor = b.real(rope.attention_factor)
    return (
        b.op("Mul", b.op("Cos", angles), factor, name="rope.cos"),
        b.op("Mul", b.op("Sin", angles), factor, name="rope.sin"),
    )


def _frequencies(
    b: Builder,
    periods: np.ndarray[tuple[int], np.dtype[np.float32]],
    factors: tuple[float, ...],
    name: str,
) -> ir.Value:
    denominator = b.constant(periods)
    if factors:
        denominator = b.op("Mul", b.constant(np.array(factors, np.float32)), denominator)
    return b.op("Reciprocal", denominator, name=name)
