"""How keys and values lie in the KV cache, for every type of cache (docs/bundle.md, "Caches").

Quantized caches are arrays of bytes [kv_heads, blocks, bytes of a block of 64 tokens]; fp16 and
fp32 caches have the shapes [kv_heads, blocks, head_dim, 64] (keys) and
[kv_heads, blocks * 64, head_dim] (values).
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
CacheType = Literal["f32", "f16", "i8", "u4"]
CACHE_TYPES: tuple[CacheType, ...] = ("f32", "f16", "i8", "u4")
BLOCK = 64
GROUP = 32
_FLOATS: dict[str, Any] = {"f32": np.float32, "f16": np.float16}


def quantize_i8(x: Array) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Codes of float32 [..., head_dim] and their scales [...]; a value is scale * code."""
    values = np.asarray(x, np.float32)
    scales = np.abs(values).max(axis=-1) / np.float32(127)
    codes = np.zeros(values.shape, np.float32)
    np.divide(values, scales[..., None], out=codes, where=scales[..., None] > 0)
    return np.clip(np.rint(codes), -127, 127).astype(np.int8), scales


def quantize_u4(x: Array) -> tuple[NDArray[np.uint8], NDArray[np.float16], NDArray[np.float16]]:
    """Codes of float32 [..., head_dim] and, per 32 dimensions, their scales and minimums.

    Returns:
        Codes [..., groups * 32], 0 beyond ``head_dim``; scales and minimums [..., groups].
    """
    values = np.asarray(x, np.float32)
    head_dim = values.shape[-1]
    groups = -(-head_dim // GROUP)
    codes = np.zeros((*values.shape[:-1], groups * GROUP), np.uint8)
    scales = np.zeros((*values.shape[:-1], groups), np.float16)
    minimums = np.zeros_like(scales)
    for g in range(groups):
        part = values[..., g * GROUP : (g + 1) * GROUP]
        minimum = np.clip(part.min(axis=-1) + 0.0, -65504, 65504).astype(np.float16)
        low = minimum.astype(np.float32)
        # From the minimum as stored, so that its rounding costs the largest number nothing.
        step = np.clip((part.max(axis=-1) - low) / np.float32(15), 0, 65504).astype(np.float16)
        scale = step.astype(np.float32)[..., None]
        exact = np.zeros(part.shape, np.float32)
        np.divide(part - low[..., None], scale, out=exact, where=scale > 0)
        codes[..., g * GROUP : g * GROUP + part.shape[-1]] = np.clip(np.rint(exact), 0, 15)
        scales[..., g], minimums[..., g] = step, minimum
    return codes, scales, minimums


def stored(x: Array, dtype: CacheType) -> NDArray[np.float64]:
    """What a cache of this type holds in the place of x [..., head_dim]."""
    if dtype == "i8":
        codes, scales = quantize_i8(x)
        return np.asarray(codes * scales[..., None].astype(np.float64))
    if dtype == "u4":
        nibbles, steps, minimums = quantize_u4(x)
        wide = np.repeat(steps.astype(np.float64), GROUP, axis=-1)
        low = np.repeat(minimums.astype(np.float64), GROUP, axis=-1)
        return np.asarray((low + wide * nibbles)[..., : x.shape[-1]])
    return np.asarray(x, np.float32).astype(_FLOATS[dtype]).astype(np.float64)


def pack_keys(keys: Array, blocks: int, dtype: CacheType, fill: float = 0) -> Array:
    """[kv_heads, tokens, head_dim] -> a key cache; numbers of tokens beyond are ``fill``.

    A quantized cache is filled with the byte ``fill`` there.
    """
    kv_heads, tokens, head_dim = keys.shape
    capacity = blocks * BLOCK
    if dtype in _FLOATS:
        whole = np.full((kv_heads, capacity, head_dim), fill, _FLOATS[dtype])
        whole[:, :tokens] = keys
        split = whole.reshape(kv_heads, blocks, BLOCK, head_dim)
        return np.ascontiguousarray(split.transpose(0, 1, 3, 2))
    if dtype == "i8":
        codes, scales = _whole_i8(keys, capacity, 4, fill)
        split = codes.reshape(kv_heads, blocks, BLOCK, -1, 4).transpose(0, 1, 3, 2, 4)
        return _join(kv_heads, blocks, [split, scales])
    nibbles, steps, minimums = _whole_u4(keys, capacity, fill)
    split = nibbles.reshape(kv_heads, blocks, BLOCK, -1).transpose(0, 1, 3, 2)
    low, high = split[..., : BLOCK // 2], split[..., BLOCK // 2 :]
    turned = [x.reshape(kv_heads, blocks, BLOCK, -1).swapaxes(2, 3) for x in (steps, minimums)]
    return _join(kv_heads, blocks, [low | high << 4, *turned])


def pack_values(values: Array, blocks: int, dtype: CacheType, fill: float = 0) -> Array:
    """[kv_heads, tokens, head_dim] -> a value cache, filled like :func:`pack_keys`."""
    kv_heads, tokens, head_dim = values.shape
    capacity = blocks * BLOCK
    if dtype in _FLOATS:
        whole = np.full((kv_heads, capacity, head_dim), fill, _FLOATS[dtype])
        whole[:, :tokens] = values
        return whole
    if dtype == "i8":
        codes, scales = _whole_i8(values, capacity, 16, fill)
        split = codes.reshape(kv_heads, blocks, BLOCK // 4, 4, -1).swapaxes(3, 4)
        return _join(kv_heads, blocks, [split, scales])
    nibbles, steps, minimums = _whole_u4(values, capacity, fill)
    split = nibbles.reshape(kv_heads, capacity, -1, 2, GROUP // 2)
    return _join(kv_heads, blocks, [split[..., 0, :] | split[..., 1, :] << 4, steps, minimums])


def unpack_keys(cache: Array, tokens: int, head_dim: int, dtype: CacheType) -> NDArray[np.float64]:
    """The first tokens of a key cache, [kv_heads, tokens, head_dim]."""
    kv_heads, blocks = cache.shape[:2]
    if dtype in _FLOATS:
        whole = cache.swapaxes(2, 3).reshape(kv_heads, blocks * BLOCK, head_dim)
        return np.asarray(whole[:, :tokens], np.float64)
    if dtype == "i8":
        padded = -(-head_dim // 4) * 4
        codes, scales = _split_i8(cache, padded)
        ordered = codes.reshape(kv_heads, blocks, padded // 4, BLOCK, 4).swapaxes(2, 3)
        return _scaled(ordered, scales, kv_heads, tokens, head_dim)
    groups = -(-head_dim // GROUP)
    packed, steps, minimums = _split_u4(cache, groups)
    half = packed.reshape(kv_heads, blocks, groups * GROUP, BLOCK // 2)
    nibbles = np.concatenate([half & 15, half >> 4], axis=-1).swapaxes(2, 3)
    turned = [x.reshape(kv_heads, blocks, groups, BLOCK).swapaxes(2, 3) for x in (steps, minimums)]
    return _shifted(nibbles, turned[0], turned[1], kv_heads, tokens, head_dim)


def unpack_values(
    cache: Array, tokens: int, head_dim: int, dtype: CacheType
) -> NDArray[np.float64]:
    """The first tokens of a value cache, [kv_heads, tokens, head_dim]."""
    if dtype in _FLOATS:
        return np.asarray(cache[:, :tokens], np.float64)
    kv_heads, blocks = cache.shape[:2]
    if dtype == "i8":
        padded = -(-head_dim // 16) * 16
        codes, scales = _split_i8(cache, padded)
        ordered = codes.reshape(kv_heads, blocks, BLOCK // 4, padded, 4).swapaxes(3, 4)
        return _scaled(ordered, scales, kv_heads, tokens, head_dim)
    groups = -(-head_dim // GROUP)
    packed, steps, minimums = _split_u4(cache, groups)
    half = packed.reshape(kv_heads, blocks, BLOCK, groups, GROUP // 2)
    nibbles = np.concatenate([half & 15, half >> 4], axis=-1)
    return _shifted(nibbles, steps, minimums, kv_heads, tokens, head_dim)


def _whole_i8(x: Array, capacity: int, unit: int, fill: float) -> tuple[Array, Array]:
    kv_heads, tokens, head_dim = x.shape
    codes = np.full((kv_heads, capacity, -(-head_dim // unit) * unit), int(fill), np.int8)
    scales = np.full((kv_heads, capacity, 4), int(fill), np.uint8).view(np.float32)[..., 0]
    codes[:, :tokens] = 0
    codes[:, :tokens, :head_dim], scales[:, :tokens] = quantize_i8(x)
    return codes, scales


def _whole_u4(x: Array, capacity: int, fill: float) -> tuple[Array, Array, Array]:
    kv_heads, tokens, head_dim = x.shape
    groups = -(-head_dim // GROUP)
    byte = int(fill)
    nibbles = np.full((kv_heads, capacity, groups * GROUP), byte & 15, np.uint8)
    steps = np.full((kv_heads, capacity, groups, 2), byte, np.uint8).view(np.float16)[..., 0]
    minimums = steps.copy()
    nibbles[:, :tokens], steps[:, :tokens], minimums[:, :tokens] = quantize_u4(x)
    return nibbles, steps, minimums


def _join(kv_heads: int, blocks: int, parts: list[Array]) -> NDArray[np.uint8]:
    flat = [
        np.ascontiguousarray(part).view(np.uint8).reshape(kv_heads, blocks, -1) for part in parts
    ]
    return np.concatenate(flat, axis=2)


def _split_i8(cache: Array, padded: int) -> tuple[Array, Array]:
    codes = cache[..., : padded * BLOCK].view(np.int8)
    return codes, np.ascontiguousarray(cache[..., padded * BLOCK :]).view(np.float32)


def _split_u4(cache: Array, groups: int) -> tuple[Array, Array, Array]:
    end = groups * GROUP * BLOCK // 2
    both = np.ascontiguousarray(cache[..., end:]).view(np.float16)
    return cache[..., :end], both[..., : groups * BLOCK], both[..., groups * BLOCK :]


def _scaled(
    codes: Array, scales: Array, kv_heads: int, tokens: int, head_dim: int
) -> NDArray[np.float64]:
    flat = codes.reshape(kv_heads, scales.shape[1] * BLOCK, -1)[:, :tokens, :head_dim]
    return flat * scales.reshape(kv_heads, -1, 1)[:, :tokens].astype(np.float64)


def _shifted(
    nibbles: Array, steps: Array, minimums: Array, kv_heads: int, tokens: int, head_dim: int
) -> NDArray[np.float64]:
    groups = -(-head_dim // GROUP)
    flat = nibbles.reshape(kv_heads, -1, groups * GROUP)[:, :tokens, :head_dim]
    wide = [
        np.repeat(x.reshape(kv_heads, -1, groups).astype(np.float64), GROUP, axis=2)
        for x in (steps, minimums)
    ]
    return np.asarray(wide[1][:, :tokens, :head_dim] + wide[0][:, :tokens, :head_dim] * flat)
