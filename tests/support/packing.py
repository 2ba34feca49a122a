"""The packed layouts of docs/bundle.md in the plainest numpy, for tests of kernels and packers."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def panels(values: Array) -> Array:
    """[outputs, columns] -> [outputs/16, columns, 16], padded with zeros."""
    outputs, columns = values.shape
    padded = np.zeros((-(-outputs // 16) * 16, columns), values.dtype)
    padded[:outputs] = values
    return np.ascontiguousarray(padded.reshape(-1, 16, columns).transpose(0, 2, 1))


def codes8(codes: Array) -> NDArray[np.int8]:
    """uint8 codes [outputs, inputs] -> int8 [outputs/16, inputs/4, 16, 4], less 128."""
    signed = panels((codes.astype(np.int16) - 128).astype(np.int8))
    count, inputs, _ = signed.shape
    return np.ascontiguousarray(signed.reshape(count, inputs // 4, 4, 16).transpose(0, 1, 3, 2))


def codes4(codes: Array) -> NDArray[np.uint8]:
    """uint8 codes below 16 [outputs, inputs] -> bytes [outputs/16, inputs/8, 16, 4]."""
    cut = panels(codes.astype(np.uint8))
    count, inputs, _ = cut.shape
    chunks = cut.reshape(count, inputs // 8, 2, 4, 16).transpose(0, 1, 4, 3, 2)
    return np.ascontiguousarray(chunks[..., 0] | chunks[..., 1] << 4)


def codes2(codes: Array) -> NDArray[np.uint8]:
    """uint8 codes below 4 [outputs, inputs] -> bytes [outputs/16, inputs/16, 16, 4]."""
    cut = panels(codes.astype(np.uint8))
    count, inputs, _ = cut.shape
    chunks = cut.reshape(count, inputs // 16, 4, 4, 16).transpose(0, 1, 4, 3, 2)
    both = chunks[..., 0] | chunks[..., 1] << 2 | chunks[..., 2] << 4 | chunks[..., 3] << 6
    return np.ascontiguousarray(both)


def key_cache(keys: Array, blocks: int, fill: float = np.nan) -> Array:
    """[kv_heads, tokens, head_dim] -> [kv_heads, blocks, head_dim, 64]; the rest is ``fill``."""
    kv_heads, tokens, head_dim = keys.shape
    whole = np.full((kv_heads, blocks * 64, head_dim), fill, keys.dtype)
    whole[:, :tokens] = keys
    return np.ascontiguousarray(whole.reshape(kv_heads, blocks, 64, head_dim).transpose(0, 1, 3, 2))


def value_cache(values: Array, blocks: int, fill: float = np.nan) -> Array:
    """[kv_heads, tokens, head_dim] -> [kv_heads, blocks * 64, head_dim]; the rest is ``fill``."""
    kv_heads, tokens, head_dim = values.shape
    whole = np.full((kv_heads, blocks * 64, head_dim), fill, values.dtype)
    whole[:, :tokens] = values
    return whole


def cached_keys(cache: Array, tokens: int) -> Array:
    """The inverse of :func:`key_cache`: [kv_heads, tokens, head_dim]."""
    kv_heads, blocks, head_dim, _ = cache.shape
    return cache.transpose(0, 1, 3, 2).reshape(kv_heads, blocks * 64, head_dim)[:, :tokens]
