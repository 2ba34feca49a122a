"""Attention on tensor cores with fp16 caches, under emulation, against numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from arkinfer.kernels.attention.reference import attention
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
        self, kv_heads: int, per_head: int, head_dim: int, past: int, tokens: int, **more: int
    ) -> None:
        rng = np.random.default_rng(past)
        self.heads = kv_heads * per_head
        self.tokens, self.past = tokens, past
        self.columns = self.heads * head_dim
        self.capacity = 64 * (-(-(past + tokens) // 64) + 1)
        self.wide = normal(rng, tokens, self.columns + 6) * 2
        self.q = self.wide[:, 2:-4].reshape(tokens, self.heads, head_dim)
        length = (kv_heads, past + tokens, head_dim)
        self.keys, self.values = (normal(rng, *length).astype(np.float16) for _ in range(2))
        self.defines = {
            "ARK_HEADS": self.heads,
            "ARK_KV_HEADS": kv_heads,
            "ARK_HEAD_DIM": head_dim,
            "ARK_SCALE": head_dim**-0.5,
            "ARK_Q_STRIDE": self.columns + 6,
            "ARK_Q_START": 2,
            "ARK_Y_STRIDE": self.columns + 3,
            "ARK_Y_START": 1,
            **more,
        }

    def run(self, program: Any, entry: str, splits: int, blocks: list[Array], group: int) -> Array:
        """The result, by an entry of blocks with ``group`` tokens."""
        caches = [
            cache_words(x, self.capacity, "f16", is_key, np.nan)
            for x, is_key in ((self.keys, True), (self.values, False))
        ]
        y = np.full((self.tokens, self.columns + 3), np.nan, np.float32)
        kv_heads, head_dim = self.defines["ARK_KV_HEADS"], self.defines["ARK_HEAD_DIM"]
        size = self.tokens * self.heads * splits * (2 + int(head_dim))
        to = np.full(size, np.nan, np.float32) if splits > 1 else y
        scalars = [self.tokens, self.past, self.capacity]
        groups = (-(-self.tokens // group), int(kv_heads) * splits, 1)
        given = [self.wide, *caches, *blocks, to, *scalars]
        found = program.run(entry, given, groups, 128)[-1]
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
    case = Case(*shape, ARK_SPLITS=3)
    program = compile_cuda("attention", case.defines)
    group = (16 if entry == "attend" else 64) // shape[1]
    found = case.run(program, entry, 3 if entry == "attend" else 1, [], group)
    expected = attention(case.q, case.keys, case.values, case.past, shape[2] ** -0.5)
    assert close(found, expected)


@pytest.mark.parametrize(
    ("shape", "size", "splits"),
    [
        ((2, 16, 128, 1100, 1), 64, 5),
        ((1, 16, 32, 600, 3), 32, 2),
        ((2, 2, 64, 90, 20), 16, 1),
        ((2, 4, 96, 0, 70), 64, 1),
    ],
    ids=str,
)
def test_block_sparse(compile_cuda: Any, shape: Any, size: int, splits: int) -> None:
    most = 6
    case = Case(*shape, ARK_SPLITS=splits, ARK_MOST=most, ARK_BLOCK_SIZE=size)
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
    found = case.run(program, "attend", splits, [chosen], 1)
    expected = block_sparse_attention(
        case.q, case.keys, case.values, mask, past, head_dim**-0.5, size
    )
    assert close(found, expected)
