"""Calls of cache_append and compress_keys."""

from __future__ import annotations

import numpy as np

from arkinfer.kernels.cache_append import layout
from arkinfer.kernels.compress_keys.reference import compress_keys, window_count
from tests.support.kernel_checks.check import Array, Check, Results, close
from tests.support.kernel_runner import Call


def check_cache_append(
    rng: np.random.Generator,
    tokens: int,
    past: int,
    kv_heads: int,
    head_dim: int,
    dtype: layout.CacheType,
) -> Check:
    blocks = -(-(past + tokens) // 64)
    whole = rng.standard_normal((2, kv_heads, past + tokens, head_dim)).astype(np.float32)
    new = rng.standard_normal((2, tokens, kv_heads * head_dim)).astype(np.float32)
    # Halves that round to even, overflow and underflow; a token of equal numbers.
    new[:, 0, 0] = (1.0 + 2.0**-11, 70000.0)
    new[:, -1, -1] = (3e-8, -1e-9)
    if tokens > 2:
        new[:, tokens // 2] = ((0.0,), (2.5,))
    call = Call("cache_append", tokens, past)
    call.add("k", new[0]).add("v", new[1])
    keys, values = layout.pack_keys, layout.pack_values
    old_keys, old_values = whole[:, :, :past]
    call.add("key", keys(old_keys, blocks, dtype, 7), dtype, (kv_heads, blocks, head_dim, 64))
    shape = (kv_heads, blocks * 64, head_dim)
    call.add("value", values(old_values, blocks, dtype, 7), dtype, shape)
    whole[:, :, past:] = new.reshape(2, tokens, kv_heads, head_dim).transpose(0, 2, 1, 3)
    with np.errstate(over="ignore"):
        expected = {
            "key": keys(whole[0], blocks, dtype, 7),
            "value": values(whole[1], blocks, dtype, 7),
        }

    def verify(results: Results) -> None:
        for name, cache in expected.items():
            assert results[name].tobytes() == cache.tobytes(), f"{name} differs"

    return Check(call, verify)


def compression_call(
    keys: Array,
    past: int,
    dtype: layout.CacheType,
    compressed: layout.CacheType,
    window: int = 32,
    stride: int = 16,
) -> Call:
    """A call of compress_keys for the tokens of keys [kv_heads, tokens, head_dim] after past.

    The compressed cache is all bytes of 9 (fp16 and fp32: numbers).
    """
    kv_heads, length, head_dim = keys.shape
    blocks = -(-length // 64)
    out_blocks = -(-max(1, window_count(length, window, stride)) // 64)
    call = Call("compress_keys", length - past, past)
    call.attributes = {"window": window, "stride": stride}
    call.add("key", layout.pack_keys(keys, blocks, dtype), dtype, (kv_heads, blocks, head_dim, 64))
    out = layout.pack_keys(keys[:, :0], out_blocks, compressed, 9)
    return call.add("out", out, compressed, (kv_heads, out_blocks, head_dim, 64))


def check_compress_keys(
    rng: np.random.Generator,
    tokens: int,
    past: int,
    kv_heads: int,
    head_dim: int,
    dtype: layout.CacheType,
    window: int = 32,
    stride: int = 16,
    compressed: layout.CacheType | None = None,
) -> Check:
    """``compressed``: by default what goes with a cache of ``dtype``."""
    kind: layout.CacheType = compressed or ("i8" if dtype == "u4" else dtype)
    keys = rng.standard_normal((kv_heads, past + tokens, head_dim)).astype(np.float32)
    expected = compress_keys(layout.stored(keys, dtype), window, stride)
    before = window_count(past, window, stride)
    call = compression_call(keys, past, dtype, kind, window, stride)
    count = expected.shape[1]
    # Half a unit in the last place of the stored type, and the rounding of the sum.
    step = {"f16": 2.0**-11, "f32": 1e-6, "i8": 0.0}[kind] * np.abs(expected)
    if kind == "i8":
        step = step + np.abs(expected).max(axis=2, initial=0)[..., None] / 254
    tolerance = (1.01 * step + 1e-6)[:, before:]

    def verify(results: Results) -> None:
        out, start = results["out"], call.buffers["out"]
        ours = layout.unpack_keys(out, count, head_dim, kind)
        close(ours[:, before:], expected[:, before:], tolerance)
        capacity = call.operands[1].shape[1] * 64 if call.operands[1] else 0
        with np.errstate(over="ignore"):
            was, now = (layout.unpack_keys(c, capacity, head_dim, kind) for c in (start, out))
        assert np.array_equal(was[:, :before], now[:, :before])
        assert np.array_equal(was[:, count:], now[:, count:])

    return Check(call, verify)
