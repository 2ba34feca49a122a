"""Calls of select_blocks."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from arkinfer.config import SparseConfig
from arkinfer.kernels.cache_append import layout
from arkinfer.kernels.compress_keys.reference import compress_keys, window_count
from arkinfer.kernels.select_blocks.reference import Selection, select_blocks
from tests.support.kernel_checks.check import Array, Check, Results
from tests.support.kernel_runner import Call


def mask_of(
    rows: Array,
    kv_heads: int,
    past: int,
    blocks: int,
    block_size: int,
    depths: Sequence[int] | None = None,
) -> Array:
    """What select_blocks wrote, as bool [kv_heads, tokens, blocks]; checks its form."""
    tokens = rows.shape[0]
    rows = rows.reshape(tokens, kv_heads, -1)
    mask = np.zeros((kv_heads, tokens, blocks), bool)
    for t in range(tokens):
        causal = (past + (t if depths is None else depths[t])) // block_size + 1
        for h in range(kv_heads):
            count, chosen = rows[t, h, 0], rows[t, h, 1:]
            if count < 0:
                mask[h, t, :causal] = True
                continue
            assert (np.diff(chosen[:count]) > 0).all(), "block ids must ascend"
            assert (chosen[count:] == -1).all()
            assert count == 0 or (chosen[0] >= 0 and chosen[count - 1] < causal)
            mask[h, t, chosen[:count]] = True
    return mask


def selection_call(
    q: Array, past: int, sparse: SparseConfig, fine: Array, coarse: Array, dtype: layout.CacheType
) -> Call:
    """A call of select_blocks: q [tokens, heads, head_dim], windows [kv_heads, count, head_dim].

    Room beyond the windows holds NaN, or huge numbers where the type knows none.
    """
    tokens, heads, head_dim = q.shape
    kv_heads = fine.shape[0]
    length = past + tokens
    call = Call("select_blocks", tokens, past)
    call.attributes = {
        "heads": heads,
        "scale": head_dim**-0.5,
        "block_size": sparse.block_size,
        "kernel_size": sparse.kernel_size,
        "kernel_stride": sparse.kernel_stride,
        "init_blocks": sparse.init_blocks,
        "local_blocks": sparse.local_blocks,
        "topk": sparse.topk,
        "dense_len": sparse.dense_len,
        "generation": 1 if sparse.generation == "B" else 0,
        "exact_lse": 1 if sparse.lse == "exact" else 0,
    }
    capacity = -(-length // 64) * 64
    call.add("q", q.reshape(tokens, -1).astype(np.float32))
    for name, data, factor in (("fine", fine, 1), ("coarse", coarse, 4)):
        windows = window_count(capacity, factor * sparse.kernel_size, factor * sparse.kernel_stride)
        blocks = -(-max(1, windows) // 64)
        cache = layout.pack_keys(data, blocks, dtype, 100 if dtype == "i8" else np.nan)
        call.add(name, cache, dtype, (kv_heads, blocks, head_dim, 64))
    call.add("y", np.zeros((tokens, kv_heads * (1 + sparse.max_blocks)), np.int32))
    return call


def check_windows(
    q: Array,
    fine: Array,
    coarse: Array,
    past: int,
    sparse: SparseConfig,
    dtype: layout.CacheType,
    inspect: Callable[[Selection, Array], None] | None = None,
    parents: Sequence[int] | None = None,
) -> Check:
    """Blocks chosen from these windows must equal the reference's, ties apart.

    ``parents`` makes the tokens a tree.
    """
    tokens, _, head_dim = q.shape
    kv_heads = fine.shape[0]
    call = selection_call(q, past, sparse, fine, coarse, dtype)
    if parents is not None:
        call.tree(parents)
    depths = None if call.depths is None else call.depths.tolist()
    fine, coarse = layout.stored(fine, dtype), layout.stored(coarse, dtype)
    scale = head_dim**-0.5
    expected = select_blocks(q, fine, coarse, past, scale, sparse, depths)
    blocks = expected.mask.shape[2]
    # Scores are sums of products in fp32: their rounding grows with the products' magnitudes.
    queries = np.abs(q.astype(np.float32)).reshape(tokens, kv_heads, -1, head_dim)
    keys = np.abs(fine).astype(np.float32)
    sums = np.einsum("tkgd,knd->tkgn", queries, keys, optimize=True)
    tolerance = 1e-6 * (2 + scale * sums.max(initial=0))
    if dtype == "i8":  # queries have 127 * 128 levels; a score and its lse may both be off
        tolerance += scale * queries.max() * keys.sum(axis=2).max(initial=0) / (127 * 128)

    def verify(results: Results) -> None:
        actual = mask_of(results["y"], kv_heads, past, blocks, sparse.block_size, depths)
        dense_rows = results["y"].reshape(tokens, kv_heads, -1)[:, 0, 0] < 0
        assert np.array_equal(dense_rows, expected.dense)
        wrong = expected.disagreements(actual, tolerance)
        assert not wrong.any(), f"rows {np.argwhere(wrong)[:4].tolist()} differ beyond ties"
        if inspect:
            inspect(expected, actual)

    return Check(call, verify)


def check_selection(
    q: Array,
    keys: Array,
    past: int,
    sparse: SparseConfig,
    inspect: Callable[[Selection, Array], None] | None = None,
    dtype: layout.CacheType | None = None,
    parents: Sequence[int] | None = None,
) -> Check:
    """Blocks chosen from the means of ``keys``, by default of their own type."""
    assert keys.shape[1] == past + q.shape[0]
    kind: layout.CacheType = dtype or ("f16" if keys.dtype == np.float16 else "f32")
    size, stride = sparse.kernel_size, sparse.kernel_stride
    fine = compress_keys(keys, size, stride).astype(np.float32)
    coarse = compress_keys(keys, 4 * size, 4 * stride).astype(np.float32)
    return check_windows(q, fine, coarse, past, sparse, kind, inspect, parents)
