"""The operators' function bodies in stock onnxruntime against the numpy references."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from arkinfer.config import SparseConfig
from arkinfer.kernels.attention.reference import attention
from arkinfer.kernels.block_sparse_attention.reference import block_sparse_attention
from arkinfer.kernels.compress_keys.reference import compress_keys, window_count
from tests.support.operator_session import expected, run

# 1 initial, 2 local and 3 other blocks of 16 tokens; windows of 8 and 32 tokens.
SMALL = SparseConfig(8, 4, 1, 16, 32, 3, -1, "B", "coarse")
VARIANTS = [
    replace(SMALL, generation=generation, lse=lse)
    for generation, lse in itertools.product("AB", ("coarse", "exact"))
]
HEADS, KV_HEADS, DIM, SCALE = 8, 2, 4, 0.5

# float32 scores of a few units: rounding moves a logarithm by some 1e-6.
TOLERANCE = 1e-5

variants = pytest.mark.parametrize(
    "sparse", VARIANTS, ids=lambda sparse: f"{sparse.generation}-{sparse.lse}"
)


def random_call(
    seed: int, length: int, tokens: int, spread: float = 1.0
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    rng = np.random.default_rng(seed)
    q = rng.standard_normal((tokens, HEADS, DIM)).astype(np.float32) * spread
    k = rng.standard_normal((KV_HEADS, length, DIM)).astype(np.float32)
    v = rng.standard_normal((KV_HEADS, length, DIM)).astype(np.float32)
    return q, k, v


def check(sparse: SparseConfig, q: Any, k: Any, v: Any, tolerance: float = TOLERANCE) -> None:
    """Everything that the operators compute agrees with the references."""
    found = run(sparse, q, k, v, SCALE)
    assert np.abs(found.fine - compress_keys(k, 8, 4)).max(initial=0) <= 1e-6 * np.abs(k).max()
    assert np.abs(found.coarse - compress_keys(k, 32, 16)).max(initial=0) <= 1e-6 * np.abs(k).max()
    selection = expected(sparse, q, k, SCALE)
    assert not selection.disagreements(found.mask, tolerance).any()
    past = k.shape[1] - q.shape[0]
    y = block_sparse_attention(q, k, v, found.mask, past, SCALE, sparse.block_size)
    # An error in a score is a relative error in its weight.
    assert np.abs(found.y - y).max() <= tolerance * np.abs(v).max()


@variants
@settings(deadline=None, max_examples=30)
@given(
    length=st.integers(1, 300),
    tokens=st.integers(1, 40),
    seed=st.integers(0, 2**32 - 1),
    spread=st.sampled_from([0.1, 1.0, 3.0]),
)
def test_random(sparse: SparseConfig, length: int, tokens: int, seed: int, spread: float) -> None:
    check(sparse, *random_call(seed, length, min(tokens, length), spread))


# One below, at and above every length at which a window or block appears, twice over.
BOUNDARIES = sorted(
    {edge + step for edge in (8, 12, 16, 32, 36, 48, 64, 96, 112, 128) for step in (-1, 0, 1)}
)


@variants
@pytest.mark.parametrize("length", BOUNDARIES)
def test_boundaries(sparse: SparseConfig, length: int) -> None:
    check(sparse, *random_call(length, length, length))
    check(sparse, *random_call(length + 1, length, 1))


@variants
def test_equal_keys_go_to_the_smaller_blocks(sparse: SparseConfig) -> None:
    q, k, v = random_call(0, 250, 250)
    k[:] = 0.0  # every score is exactly equal, in any precision
    selection = expected(sparse, q, k, SCALE)
    assert (selection.margin[:, 200:] == 0).all()
    assert np.array_equal(run(sparse, q, k, v, SCALE).mask, selection.mask)
    k[:] = np.float32(0.7)
    check(sparse, q, k, v)


@variants
@pytest.mark.parametrize("position", [0, 15, 16, 63, 64, 100, 249])
def test_one_huge_key(sparse: SparseConfig, position: int) -> None:
    q, k, v = random_call(1, 250, 250)
    k[:, position] *= np.float32(3e4)
    # Scores reach 1e5, where float32 is good to 0.01; closer ones are ties.
    check(sparse, q, k, v, tolerance=0.05)
    assert np.isfinite(run(sparse, q, k, v, SCALE).y).all()


@variants
def test_appending_in_pieces_selects_the_same(sparse: SparseConfig) -> None:
    q, k, v = random_call(2, 190, 190)
    whole = run(sparse, q, k, v, SCALE)
    for start, end in itertools.pairwise((0, 1, 15, 16, 63, 64, 101, 127, 190)):
        part = run(sparse, q[start:end], k[:, :end], v[:, :end], SCALE)
        blocks = part.mask.shape[2]
        assert np.array_equal(part.mask, whole.mask[:, start:end, :blocks])
        assert not whole.mask[:, start:end, blocks:].any()
        assert np.abs(part.y - whole.y[start:end]).max() <= 1e-6


@variants
def test_equals_dense_while_all_blocks_fit(sparse: SparseConfig) -> None:
    length = sparse.max_blocks * sparse.block_size
    q, k, v = random_call(3, length + 1, length + 1)
    found = run(sparse, q, k, v, SCALE)
    dense = attention(q, k, v, 0, SCALE)
    assert np.abs(found.y[:length] - dense[:length]).max() <= 1e-5
    assert found.mask[:, length].sum(axis=-1).tolist() == [sparse.max_blocks] * KV_HEADS
    assert np.abs(found.y[length] - dense[length]).max() > 1e-4


@variants
def test_dense_len(sparse: SparseConfig) -> None:
    q, k, v = random_call(4, 200, 200)
    mixed = replace(sparse, dense_len=150)
    mask = run(mixed, q, k, v, SCALE).mask
    last = np.arange(200)[:, None] // 16
    causal = np.arange(mask.shape[2])[None, :] <= last
    assert np.array_equal(mask[:, :149], np.broadcast_to(causal[:149], mask[:, :149].shape))
    assert np.array_equal(mask[:, 149:], run(sparse, q, k, v, SCALE).mask[:, 149:])
    check(mixed, q, k, v)


TABLE = {
    31: (0, 0),
    32: (1, 0),
    47: (1, 0),
    48: (2, 0),
    127: (6, 0),
    128: (7, 1),
    191: (10, 1),
    192: (11, 2),
    8191: (510, 126),
    8192: (511, 127),
}


@pytest.mark.parametrize("length", TABLE)
def test_released_window_counts(length: int) -> None:
    sparse = SparseConfig(dense_len=-1)
    k = np.random.default_rng(length).standard_normal((1, length, 1)).astype(np.float32)
    found = run(sparse, np.ones((1, 1, 1)), k, k, 1.0)
    assert (found.fine.shape[1], found.coarse.shape[1]) == TABLE[length]
    assert found.mask.shape[2] == -(-length // 64)
    assert (window_count(length, 32, 16), window_count(length, 128, 64)) == TABLE[length]


# A toy of the size of a hand calculation: d = 1, windows 2/1 and 8/4, blocks of 4.
TOY = SparseConfig(2, 1, 1, 4, 4, 3, -1, "B", "coarse")


@pytest.mark.parametrize("lse", ["coarse", "exact"])
def test_worked_example(lse: str) -> None:
    sparse = replace(TOY, lse=lse)
    k = np.zeros((1, 24, 1))
    k[0, 9] = 2 * np.log(2)
    v = np.arange(24.0)[None, :, None]
    q = np.ones((24, 1, 1))
    found = run(sparse, q, k, v, 1.0)
    assert found.y[23, 0, 0] == pytest.approx(227 / 19, rel=1e-6)
    assert found.y[10, 0, 0] == pytest.approx(82 / 14, rel=1e-6)
    assert np.flatnonzero(found.mask[0, 23]).tolist() == [0, 2, 4, 5]
    assert np.flatnonzero(found.mask[0, 10]).tolist() == [0, 1, 2]
    scores = np.exp(expected(sparse, q, k, 1.0).scores[0, 23, 1:4])
    lowest = 0.04 if lse == "exact" else 0.185928
    assert scores == pytest.approx([lowest, 2 * lowest, lowest], rel=1e-5)


@pytest.mark.parametrize(
    ("generation", "query", "others"),
    [
        ("B", 1.0, range(33, 95)),
        ("B", -1.0, range(1, 63)),
        ("A", 1.0, range(33, 96)),
        ("A", -1.0, range(1, 64)),
    ],
)
def test_released_values_at_8192(generation: str, query: float, others: range) -> None:
    sparse = SparseConfig(generation=generation)
    k = (np.arange(8192.0) / 512)[None, :, None]  # later keys score higher
    found = run(sparse, np.full((1, 1, 1), query), k, k, 1.0)
    local = range(95, 128) if generation == "B" else range(96, 128)
    assert np.flatnonzero(found.mask[0, 0]).tolist() == [0, *others, *local]
    assert found.mask.sum() == 96


def test_a_window_on_a_boundary_counts_for_both_blocks() -> None:
    sparse = SparseConfig(init_blocks=0, window_size=64, topk=3, dense_len=-1)
    k = np.zeros((1, 1024, 1))
    k[0, 64] = 100.0
    q = np.ones((1, 1, 1))
    found = run(sparse, q, k, k, 1.0)
    # Blocks 0 and 1 by the key, 14 and 15 as the window.
    assert np.flatnonzero(found.mask[0, 0]).tolist() == [0, 1, 14, 15]
    scores = expected(sparse, q, k, 1.0).scores[0, 0]
    assert scores[0] == scores[1] > scores[2]


def test_reference_notices_wrong_blocks() -> None:
    q, k, v = random_call(5, 200, 4)
    selection = expected(SMALL, q, k, SCALE)
    wrong = selection.mask.copy()
    free = np.flatnonzero(~wrong[0, 3])
    taken = [b for b in np.flatnonzero(wrong[0, 3]) if np.isfinite(selection.scores[0, 3, b])]
    worst = free[np.argmin(selection.scores[0, 3, free])]
    wrong[0, 3, taken[0]], wrong[0, 3, worst] = False, True
    disagreements = selection.disagreements(wrong, TOLERANCE)
    assert disagreements[0, 3] and disagreements.sum() == 1
    wrong[0, 3, worst] = False
    assert selection.disagreements(wrong, np.inf)[0, 3]
    assert selection.near_ties(np.inf).all() and not selection.near_ties(-1.0).any()
