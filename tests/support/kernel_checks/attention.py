"""Calls of attention and block_sparse_attention."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from arkinfer.kernels.attention.reference import attend, causal, int8_queries
from arkinfer.kernels.cache_append import layout
from tests.support.kernel_checks.check import Array, Check, close
from tests.support.kernel_runner import Call


def _add_caches(
    call: Call,
    rng: np.random.Generator,
    kv_heads: int,
    length: int,
    head_dim: int,
    dtype: layout.CacheType,
) -> tuple[Array, Array]:
    """Adds random caches to a call; gives what they stand for, [kv_heads, length, head_dim]."""
    keys, values = rng.standard_normal((2, kv_heads, length, head_dim)).astype(np.float32)
    blocks = -(-length // 64) + 1
    # What lies beyond the sequence is NaN (quantized: any bytes): reading it would show.
    fill = 7 if dtype in ("i8", "u4") else np.nan
    shape = (kv_heads, blocks, head_dim, 64)
    call.add("key", layout.pack_keys(keys, blocks, dtype, fill), dtype, shape)
    value_shape = (kv_heads, blocks * 64, head_dim)
    call.add("value", layout.pack_values(values, blocks, dtype, fill), dtype, value_shape)
    return layout.stored(keys, dtype), layout.stored(values, dtype)


def _add_query(
    call: Call, rng: np.random.Generator, tokens: int, heads: int, head_dim: int
) -> Array:
    wide = rng.standard_normal((tokens, heads * head_dim + 9)).astype(np.float32) * 2
    call.buffers["q"] = wide
    call.view("q", 5, heads * head_dim)
    return wide[:, 5 : 5 + heads * head_dim].reshape(tokens, heads, head_dim)


def check_attention(
    rng: np.random.Generator,
    tokens: int,
    past: int,
    kv_heads: int,
    group: int,
    head_dim: int,
    dtype: layout.CacheType,
    parents: Sequence[int] | None = None,
) -> Check:
    """``parents`` makes the tokens a tree."""
    heads, length = kv_heads * group, past + tokens
    scale = head_dim**-0.5
    call = Call("attention", tokens, past, attributes={"heads": heads, "scale": scale})
    q = _add_query(call, rng, tokens, heads, head_dim)
    keys, values = _add_caches(call, rng, kv_heads, length, head_dim, dtype)
    call.add("y", np.zeros((tokens, heads * head_dim), np.float32))
    if parents is not None:
        call.tree(parents)
    seen = causal(tokens, past, length, call.ancestors)
    visible = np.broadcast_to(seen, (kv_heads, tokens, length))
    return _attention_check(call, q, keys, values, visible, dtype)


def _attention_check(
    call: Call, q: Array, keys: Array, values: Array, visible: Array, dtype: str
) -> Check:
    """Results must be those of the reference up to rounding, for int8 that of codes, too."""
    tokens, heads, head_dim = q.shape
    scale = head_dim**-0.5
    tolerance: Array | float = 2e-5
    if dtype == "i8":
        queries = int8_queries(q, scale)
        expected = attend(queries, keys, values, visible, 1)
        tolerance = _weight_rounding(queries, keys, values, visible).reshape(tokens, -1) + 2e-5
    else:
        expected = attend(q, keys, values, visible, scale)
    expected = expected.reshape(tokens, heads * head_dim)
    return Check(call, lambda results: close(results["y"], expected, tolerance))


def _weight_rounding(q: Array, keys: Array, values: Array, visible: Array) -> Array:
    """The most that 7-bit weights can change: half a step for every code of a block's values."""
    tokens, heads, head_dim = q.shape
    kv_heads, length, _ = keys.shape
    scales = np.abs(values).max(axis=2) / 127
    codes = np.zeros_like(values)
    np.divide(np.abs(values), scales[..., None], out=codes, where=scales[..., None] > 0)
    grouped = q.reshape(tokens, kv_heads, -1, head_dim)
    scores = np.einsum("tkgd,knd->ktgn", grouped, keys)
    scores = np.where(visible[:, :, None], scores, -np.inf)
    weights = np.exp(scores - scores.max(axis=3, keepdims=True))
    weights /= weights.sum(axis=3, keepdims=True)
    found = np.zeros((tokens, kv_heads, heads // kv_heads, head_dim))
    for start in range(0, length, 64):
        part = slice(start, start + 64)
        top = (weights[..., part] * scales[:, None, None, part]).max(axis=3)
        # A token that the row does not see has weight 0 in any case.
        sums = np.einsum("ktn,knd->ktd", visible[..., part].astype(float), codes[:, part])
        found += np.einsum("ktg,ktd->tkgd", top / 254, sums)
    return found.reshape(tokens, heads, head_dim)


def block_rows(masks: list[list[list[int] | None]], most: int) -> Array:
    """masks[token][kv head]: chosen blocks, or None for a dense row -> i32 [tokens, columns]."""
    rows = np.full((len(masks), len(masks[0]), 1 + most), -1, np.int32)
    for t, heads in enumerate(masks):
        for h, chosen in enumerate(heads):
            if chosen is not None:
                rows[t, h, 0] = len(chosen)
                rows[t, h, 1 : 1 + len(chosen)] = chosen
    return rows.reshape(len(masks), -1)


def check_block_sparse(
    rng: np.random.Generator,
    tokens: int,
    past: int,
    kv_heads: int,
    group: int,
    head_dim: int,
    dtype: layout.CacheType,
    block_size: int = 64,
    most: int = 6,
    parents: Sequence[int] | None = None,
) -> Check:
    """``parents`` makes the tokens a tree."""
    heads, length = kv_heads * group, past + tokens
    scale = head_dim**-0.5
    call = Call("block_sparse_attention", tokens, past)
    if parents is not None:
        call.tree(parents)
    depths = np.arange(tokens) if call.depths is None else call.depths
    mask = np.zeros((kv_heads, tokens, -(-length // block_size)), bool)
    chosen: list[list[list[int] | None]] = []
    for t in range(tokens):
        chosen.append([])
        for h in range(kv_heads):
            visible_blocks = (past + int(depths[t])) // block_size + 1
            if rng.random() < 0.2:
                mask[h, t, :visible_blocks] = True
                chosen[-1].append(None)
                continue
            picked = rng.permutation(visible_blocks)[: rng.integers(1, most + 1)]
            mask[h, t, picked] = True
            chosen[-1].append(sorted(int(b) for b in picked))
    call.attributes = {"heads": heads, "scale": scale, "block_size": block_size}
    q = _add_query(call, rng, tokens, heads, head_dim)
    keys, values = _add_caches(call, rng, kv_heads, length, head_dim, dtype)
    call.add("blocks", block_rows(chosen, most))
    call.add("y", np.zeros((tokens, heads * head_dim), np.float32))
    # A draft token lies in the slots behind past, and is chosen by its position.
    positions = np.concatenate([np.arange(past), past + depths])
    visible = mask[:, :, positions // block_size] & causal(tokens, past, length, call.ancestors)
    return _attention_check(call, q, keys, values, visible, dtype)
