"""The packed layouts against docs/bundle.md, and their round trips."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from arkinfer.backends.cpu import pack
from arkinfer.backends.cpu.arena import Lifetime, place

SHAPES = st.tuples(st.integers(1, 70), st.integers(1, 9))


def at(packed: np.ndarray[Any, Any], *index: int) -> int:
    return int(packed[index])


@given(SHAPES, st.sampled_from([np.float32, np.float16, ml_dtypes.bfloat16, np.uint8]))
def test_matrix(shape: tuple[int, int], dtype: Any) -> None:
    outputs, inputs = shape
    rows = np.random.default_rng(0).integers(0, 255, shape).astype(dtype)
    packed = pack.pack_matrix(rows)
    assert packed.shape == (-(-outputs // 16), inputs, 16)
    assert packed.nbytes == pack.packed_bytes(outputs, inputs, rows.itemsize * 8)
    for n, k in ((0, 0), (outputs - 1, inputs - 1), (outputs // 2, inputs // 2)):
        assert packed[n // 16, k, n % 16] == rows[n, k]
    assert not packed[-1, :, (outputs - 1) % 16 + 1 :].any()
    np.testing.assert_array_equal(pack.unpack_matrix(packed.ravel(), *shape), rows)


@given(SHAPES, st.integers(0, 2**32))
def test_codes8(shape: tuple[int, int], seed: int) -> None:
    outputs, inputs = shape[0], 4 * shape[1]
    codes = np.random.default_rng(seed).integers(0, 256, (outputs, inputs), dtype=np.uint8)
    packed = pack.pack_codes8(codes)
    assert packed.dtype == np.int8
    assert packed.nbytes == pack.packed_bytes(outputs, inputs, 8)
    for n, k in ((0, 0), (outputs - 1, inputs - 1), (outputs // 2, inputs // 2)):
        assert at(packed, n // 16, k // 4, n % 16, k % 4) == int(codes[n, k]) - 128
    assert not packed[-1, :, (outputs - 1) % 16 + 1 :].any()
    np.testing.assert_array_equal(pack.unpack_codes8(packed.ravel(), outputs, inputs), codes)


@given(SHAPES, st.integers(0, 2**32))
def test_codes4(shape: tuple[int, int], seed: int) -> None:
    outputs, inputs = shape[0], 8 * shape[1]
    codes = np.random.default_rng(seed).integers(0, 16, (outputs, inputs), dtype=np.uint8)
    packed = pack.pack_codes4(codes)
    assert packed.nbytes == pack.packed_bytes(outputs, inputs, 4)
    for n in {0, outputs // 2, outputs - 1}:
        for c in {0, shape[1] - 1}:
            for b in range(4):
                byte = at(packed, n // 16, c, n % 16, b)
                assert byte & 15 == codes[n, 8 * c + b]
                assert byte >> 4 == codes[n, 8 * c + 4 + b]
    assert not packed[-1, :, (outputs - 1) % 16 + 1 :].any()
    np.testing.assert_array_equal(pack.unpack_codes4(packed.ravel(), outputs, inputs), codes)


@given(SHAPES, st.integers(0, 2**32))
def test_codes2(shape: tuple[int, int], seed: int) -> None:
    outputs, inputs = shape[0], 16 * shape[1]
    codes = np.random.default_rng(seed).integers(0, 4, (outputs, inputs), dtype=np.uint8)
    packed = pack.pack_codes2(codes)
    assert packed.nbytes == pack.packed_bytes(outputs, inputs, 2)
    for n in {0, outputs // 2, outputs - 1}:
        for c in {0, shape[1] - 1}:
            for b in range(4):
                for j in range(4):
                    found = at(packed, n // 16, c, n % 16, b) >> 2 * j & 3
                    assert found == codes[n, 16 * c + 4 * j + b]
    assert not packed[-1, :, (outputs - 1) % 16 + 1 :].any()
    np.testing.assert_array_equal(pack.unpack_codes2(packed.ravel(), outputs, inputs), codes)


@given(st.integers(1, 5), st.integers(1, 3))
def test_chunks_of_rows_join(panels: int, chunk: int) -> None:
    rows = np.random.default_rng(1).integers(0, 16, (panels * 16 - 3, 16), dtype=np.uint8)
    step = chunk * 16
    parts = [pack.pack_codes4(rows[i : i + step]) for i in range(0, len(rows), step)]
    np.testing.assert_array_equal(np.concatenate(parts), pack.pack_codes4(rows))


LIVES = st.lists(
    st.builds(
        lambda size, first, length: Lifetime(size, first, first + length),
        st.integers(1, 5000),
        st.integers(0, 20),
        st.integers(0, 8),
    ),
    max_size=30,
)


@given(LIVES)
def test_arena_never_overlaps(lives: list[Lifetime]) -> None:
    offsets, total = place(lives)
    for offset, life in zip(offsets, lives, strict=True):
        assert offset % 64 == 0
        assert 0 <= offset <= total - life.size
    for i, a in enumerate(lives):
        for j in range(i):
            if a.first <= lives[j].last and lives[j].first <= a.last:
                apart = offsets[i] + a.size <= offsets[j]
                assert apart or offsets[j] + lives[j].size <= offsets[i]
    # At least what one moment needs, at most everything side by side.
    aligned = [-(-life.size // 64) * 64 for life in lives]
    moments = [
        sum(a for a, life in zip(aligned, lives, strict=True) if life.first <= t <= life.last)
        for t in range(30)
    ]
    assert max(moments) <= total <= sum(aligned)


def test_arena_reuses() -> None:
    _, total = place([Lifetime(640, 0, 1), Lifetime(640, 2, 3), Lifetime(64, 1, 2)])
    assert total == 640 + 64


@pytest.mark.parametrize(("outputs", "want"), [(1, 1), (16, 1), (17, 2)])
def test_panels(outputs: int, want: int) -> None:
    assert pack.panels(outputs) == want
