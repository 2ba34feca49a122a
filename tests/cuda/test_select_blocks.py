"""Block selection on tensor cores with fp16 caches, under emulation, against numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from arkinfer.backends._steps.plan import Buffer, Cache, View
from arkinfer.config import SparseConfig
from arkinfer.kernels.compress_keys.reference import compress_keys
from arkinfer.kernels.select_blocks import cuda
from arkinfer.kernels.select_blocks.reference import select_blocks
from tests.support.device_caches import cache_words

Array = NDArray[Any]
KV_HEADS = 2

CASES = [  # heads of each, head_dim, past, tokens, rule
    (16, 128, 3000, 1, SparseConfig(32, 16, 1, 64, 512, 8, -1, "B", "coarse")),
    (16, 32, 6000, 2, SparseConfig(8, 4, 1, 16, 64, 20, -1, "B", "exact")),
    (3, 16, 300, 5, SparseConfig(8, 4, 1, 16, 48, 6, 302, "A", "exact")),
    (9, 64, 0, 90, SparseConfig(8, 4, 1, 16, 16, 2, -1, "B", "exact")),
    (2, 16, 50, 6, SparseConfig(8, 4, 0, 16, 16, 2, -1, "A", "coarse")),
]


def places(capacity: int, stride: int) -> int:
    return (capacity // stride + 64) // 64 * 64


def defines(case: Any, start: int) -> dict[str, int | float | str] | None:
    per_head, head_dim, _, _, sparse = case
    heads = KV_HEADS * per_head
    names = ("kernel_size", "kernel_stride", "init_blocks", "block_size", "local_blocks")
    attributes: dict[str, float] = {
        "heads": heads,
        "scale": head_dim**-0.5,
        **{name: getattr(sparse, name) for name in (*names, "topk", "dense_len")},
        "generation": "AB".index(sparse.generation),
        "exact_lse": sparse.lse == "exact",
    }
    fine = Cache("fine", "compressed", KV_HEADS, head_dim)
    columns, width = heads * head_dim, KV_HEADS * (1 + sparse.max_blocks)
    q = View(Buffer("q", columns + start), start, columns)
    return cuda.macros(fine, attributes, q, View.whole(Buffer("y", width)))


@pytest.mark.parametrize("entries", ["few", "many"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_selection(compile_cuda: Any, case: Any, entries: str) -> None:
    per_head, head_dim, past, tokens, sparse = case
    rng = np.random.default_rng(past)
    length, heads, stride = past + tokens, KV_HEADS * per_head, sparse.kernel_stride
    capacity = 64 * (-(-length // 64) + 1)
    keys = rng.standard_normal((KV_HEADS, length, head_dim))
    fine, coarse = (
        compress_keys(keys, n * sparse.kernel_size, n * stride).astype(np.float16) for n in (1, 4)
    )
    wide = (rng.standard_normal((tokens, heads * head_dim + 2)) * 4).astype(np.float32)
    basis, ratio = (fine, 1) if sparse.lse == "exact" else (coarse, 4)
    sizes = [places(capacity, n * stride) for n in (1, ratio)]
    packed = cache_words(fine, sizes[0], "f16", is_key=True, fill=np.nan)
    normalised = cache_words(basis, sizes[1], "f16", is_key=True, fill=np.nan)
    program = compile_cuda("select_blocks", defines(case, 2))
    each = {"few": 1, "many": cuda.MANY_TOKENS}[entries]
    bands = -(-tokens // each) * KV_HEADS
    scalars = [tokens, past, capacity]

    parts: Array = np.full((tokens, heads, sizes[1] // 64, 2), np.nan, np.float32)
    grid = ((length // (ratio * stride)) // 64 + 1, bands, 1)
    given: list[Any] = [wide, normalised, parts, *scalars]
    parts = program.run(f"normalize_{entries}", given, grid, each * 32)[-1]
    windows: Array = np.full((tokens, KV_HEADS, sizes[0]), np.nan, np.float32)
    given = [wide, packed, parts, windows, *scalars]
    # The grid may reach beyond what is seen, as that of a recorded graph does.
    grid = (sizes[0] // 64 + 1, bands, 1)
    windows = program.run(f"score_{entries}", given, grid, each * 32)[-1]
    width, blocks = 1 + sparse.max_blocks, -(-capacity // sparse.block_size)
    bits: Array = np.zeros((tokens, KV_HEADS, blocks), np.uint32)
    chosen: Array = np.zeros((tokens, KV_HEADS, width), np.int32)
    given = [windows, bits, chosen, past, capacity]
    chosen = program.run("choose", given, (tokens, KV_HEADS, 1), cuda.LANES)[-1]

    q = wide[:, 2:].reshape(tokens, heads, head_dim)
    expected = select_blocks(q, fine, coarse, past, head_dim**-0.5, sparse)
    mask = np.zeros_like(expected.mask)
    for t in range(tokens):
        for h in range(KV_HEADS):
            count = int(chosen[t, h, 0])
            assert (count < 0) == bool(expected.dense[t])
            assert (chosen[t, h, 1 + max(count, 0) :] == -1).all()
            if count < 0:
                mask[h, t, : (past + t) // sparse.block_size + 1] = True
                continue
            assert (np.diff(chosen[t, h, 1 : 1 + count]) > 0).all()
            mask[h, t, chosen[t, h, 1 : 1 + count]] = True
    assert not expected.disagreements(mask, 1e-4).any()
