"""Attention on tensor cores with fp16 caches, under emulation, against numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from arkinfer.backends._steps.plan import Buffer, Cache, View
from arkinfer.kernels.attention import cuda
from arkinfer.kernels.attention.reference import attention
from arkinfer.kernels.block_sparse_attention import cuda as sparse_cuda
from arkinfer.kernels.block_sparse_attention.reference import block_sparse_attention
from tests.support.device_caches import cache_words

Array = NDArray[Any]
# Queries and weights of softmax are rounded to halves, by up to 2^-11 of themselves.
TOLERANCE = 1.5e-3


def normal(rng: np.random.Generator, *shape: int) -> NDArray[np.float32]:
    return rng.standard_normal(shape).astype(np.float32)


class Case:
    """Random queries within wider rows, and caches whose unwritten part is NaN."""

    def __init__(
        self, shape: tuple[int, int, int, int, int], splits: int, more: dict[str, int]
    ) -> None:
        kv_heads, per_head, head_dim, past, tokens = shape
        rng = np.random.default_rng(past)
        self.heads = kv_heads * per_head
        self.tokens, self.past = tokens, past
        self.columns = self.heads * head_dim
        self.capacity = 64 * (-(-(past + tokens) // 64) + 1)
        self.wide = normal(rng, tokens, self.columns + 6) * 2
        self.q = self.wide[:, 2:-4].reshape(tokens, self.heads, head_dim)
        length = (kv_heads, past + tokens, head_dim)
        self.keys, self.values = (normal(rng, *length).astype(np.float16) for _ in range(2))
        q = View(Buffer("q", self.columns + 6), 2, self.columns)
        y = View(Buffer("y", self.columns + 3), 1, self.columns)
        key = Cache("key", "key", kv_heads, head_dim)
        shape_macros = cuda.macros(key, self.heads, head_dim**-0.5, q, y, splits)
        assert shape_macros is not None
        self.defines = shape_macros | more
        self.kv_heads, self.head_dim = kv_heads, head_dim

    def run(self, program: Any, entry: str, splits: int, blocks: list[Array], group: int) -> Array:
        """The result, by an entry of blocks with ``group`` tokens."""
        caches = [
            cache_words(x, self.capacity, "f16", is_key, np.nan)
            for x, is_key in ((self.keys, True), (self.values, False))
        ]
        y = np.full((self.tokens, self.columns + 3), np.nan, np.float32)
        size = self.tokens * self.heads * splits * (2 + self.head_dim)
        to = np.full(size, np.nan, np.float32) if splits > 1 else y
        scalars = [self.tokens, self.past, self.capacity]
        groups = (-(-self.tokens // group), self.kv_heads * splits, 1)
        given = [self.wide, *caches, *blocks, to, *scalars]
        found = program.run(entry, given, groups, cuda.LANES)[-1]
        if splits > 1:
            found = program.run("combine", [found, y], (self.tokens, self.heads, 1), 128)[-1]
        assert np.isnan(found[:, [0, -1, -2]]).all()
        return found[:, 1:-2].reshape(self.q.shape)


def close(found: Array, expected: Array) -> bool:
    return float(np.abs(found - expected).max()) < TOLERANCE * float(np.abs(expected).max())


@pytest.mark.parametrize(
    "shape",
    [  # kv heads, heads of each, head_dim, past, tokens
        (2, 16, 128, 700, 1),
        (1, 16, 64, 100, 3),
        (3, 3, 64, 63, 7),
        (1, 1, 16, 0, 40),
        (2, 8, 80, 130, 9),
    ],
    ids=str,
)
@pytest.mark.parametrize("entry", ["attend", "flash"])
def test_dense(compile_cuda: Any, shape: Any, entry: str) -> None:
    case = Case(shape, 3, {})
    program = compile_cuda("attention", case.defines)
    group = (cuda.ROWS if entry == "attend" else cuda.FLASH_ROWS) // shape[1]
    found = case.run(program, entry, 3 if entry == "attend" else 1, [], group)
    expected = attention(case.q, case.keys, case.values, case.past, shape[2] ** -0.5)
    assert close(found, expected)


@pytest.mark.parametrize(
    ("entry", "shape", "size", "splits"),
    [
        ("attend", (2, 16, 128, 1100, 1), 64, 5),
        ("attend", (1, 16, 32, 600, 3), 32, 2),
        ("attend", (2, 2, 64, 90, 20), 16, 1),
        ("attend_many", (2, 4, 96, 0, 70), 64, 1),
        ("attend_many", (1, 16, 128, 900, 11), 64, 1),
    ],
    ids=str,
)
def test_block_sparse(compile_cuda: Any, entry: str, shape: Any, size: int, splits: int) -> None:
    most = 6
    case = Case(shape, splits, {"ARK_MOST": most, "ARK_BLOCK_SIZE": size})
    kv_heads, _, head_dim, past, tokens = shape
    rng = np.random.default_rng(size)
    chosen = np.full((tokens, kv_heads, 1 + most), -1, np.int32)
    mask = np.zeros((kv_heads, tokens, -(-(past + tokens) // size)), bool)
    for t in range(tokens):
        last = (past + t) // size
        for h in range(kv_heads):
            if (t + h) % 3 == 2:  # all blocks
                mask[h, t, : last + 1] = True
                continue
            others = rng.choice(last + 1, min(most - 1, last + 1), replace=False)
            blocks = np.unique([*others, last])
            chosen[t, h, : 1 + blocks.size] = [blocks.size, *blocks]
            mask[h, t, blocks] = True
    program = compile_cuda("block_sparse_attention", case.defines)
    group = 1 if entry == "attend" else sparse_cuda.MANY_TOKENS
    found = case.run(program, entry, splits, [chosen], group)
    expected = block_sparse_attention(
        case.q, case.keys, case.values, mask, past, head_dim**-0.5, size
    )
    assert close(found, expected)
