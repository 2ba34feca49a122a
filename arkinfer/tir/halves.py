"""fp16 in 32-bit words, by integer arithmetic: not every target computes with fp16, all store it.

A word holds two numbers, the first in its low half.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from tvm.script import tirx as T

# What is added to a half's exponent to make it a float's: (127 - 15) << 23.
_REBIAS = 112 << 23


def u32(value: int) -> Any:
    """A constant."""
    return T.uint32(value)


def as_float(bits: Any) -> Any:
    """The float32 of these bits."""
    return T.reinterpret("float32", bits)


def constant(value: float) -> Any:
    """A float32 constant to its last bit.

    Some of TVM's code generators print floats with seven digits; these then go in as bits.
    """
    exact = np.float32(value)
    if np.float32(f"{exact:e}") == exact:
        return T.float32(float(exact))
    return as_float(u32(int(exact.view(np.uint32))))


def as_bits(value: Any) -> Any:
    """The bits of a float32."""
    return T.reinterpret("uint32", value)


def _decode(half: Any) -> Any:
    """From 16 bits in a uint32; not for infinities and NaN."""
    magnitude = half & u32(0x7FFF)
    # Subnormal halves are computed, for many GPUs take subnormal floats as zero.
    small = T.Cast("float32", T.Cast("int32", magnitude)) * constant(2.0**-24)
    normal = as_float((magnitude << u32(13)) + u32(_REBIAS))
    value = T.Select(magnitude < u32(0x400), small, normal)
    return T.Select((half & u32(0x8000)) != u32(0), T.float32(0) - value, value)


def low(word: Any, native: bool = False) -> Any:
    """The first number of a word; ``native``: by the device's own fp16."""
    half = word & u32(0xFFFF)
    return _convert(half) if native else _decode(half)


def high(word: Any, native: bool = False) -> Any:
    """The second number of a word; ``native`` as of :func:`low`."""
    half = word >> u32(16)
    return _convert(half) if native else _decode(half)


def _convert(half: Any) -> Any:
    return T.Cast("float32", T.reinterpret("float16", T.Cast("uint16", half)))


def bf16(half: Any) -> Any:
    """A bfloat16, from 16 bits in a uint32."""
    return as_float(half << u32(16))


def _encode(value: Any) -> Any:
    """To the nearest half, ties to even; beyond the largest half, to that."""
    bits = as_bits(value)
    magnitude = bits & u32(0x7FFFFFFF)
    rounded = magnitude - u32(_REBIAS) + u32(0xFFF) + ((magnitude >> u32(13)) & u32(1))
    normal = T.min(rounded >> u32(13), u32(0x7BFF))
    # Adding 2^23 rounds to a whole number, which is then the low bits of the sum.
    scaled = as_float(T.min(magnitude, u32(0x38800000))) * constant(2.0**24)
    small = as_bits(scaled + constant(2.0**23)) & u32(0x7FFFFF)
    chosen = T.Select(magnitude < u32(0x38800000), small, normal)
    return chosen | ((bits >> u32(16)) & u32(0x8000))


def pack(first: Any, second: Any) -> Any:
    """A word of two float32 rounded to halves."""
    return _encode(first) | (_encode(second) << u32(16))
