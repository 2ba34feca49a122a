"""InfLLM v2 through the native kernels: worked examples, boundaries, hard keys, increments."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from arkinfer.config import SparseConfig
from arkinfer.kernels.cache_append import layout
from arkinfer.kernels.compress_keys.reference import compress_keys, window_count
from arkinfer.kernels.select_blocks.reference import Selection
from tests.support import packing
from tests.support.kernel_checks import (
    CACHE_TYPES,
    Check,
    block_rows,
    check_selection,
    check_windows,
    compression_call,
    mask_of,
    run_checks,
    selection_call,
)
from tests.support.kernel_runner import Call, LibraryRunner, aligned

Array = NDArray[Any]
COMPRESSED_TYPES: tuple[layout.CacheType, ...] = ("f32", "f16", "i8")
# The released values, with selection from the first token on.
RELEASED = SparseConfig(dense_len=-1)
GENERATIONS = [("A", "exact"), ("A", "coarse"), ("B", "coarse"), ("B", "exact")]
# Lengths around every place where a window, a coarse window, a block or dense_len begins.
LENGTHS = [n for edge in (32, 48, 128, 192, 6144, 8192) for n in (edge - 1, edge, edge + 1)]


def _released(generation: str, lse: str, dense_len: int = -1) -> SparseConfig:
    return dataclasses.replace(RELEASED, generation=generation, lse=lse, dense_len=dense_len)


# ---- the worked examples of one query over 24 tokens ----------------------------------------

TOY = SparseConfig(
    kernel_size=2,
    kernel_stride=1,
    block_size=4,
    init_blocks=1,
    window_size=4,
    topk=3,
    dense_len=-1,
)


def _toy_attention(
    kernels: LibraryRunner, isa: str, keys: Array, values: Array, past: int, rows: Array
) -> float:
    call = Call("block_sparse_attention", 1, past)
    call.attributes = {"heads": 1, "scale": 1, "block_size": 4}
    call.add("q", np.ones((1, 1), np.float32))
    call.add("key", packing.key_cache(keys, 1)).add("value", packing.value_cache(values, 1))
    call.add("blocks", rows).add("y", np.zeros((1, 1), np.float32))
    return float(kernels.run([(call, isa, 1)])[0]["y"][0, 0])


@pytest.mark.parametrize("lse", ["exact", "coarse"])
@pytest.mark.parametrize(
    ("position", "blocks", "output"),
    [(23, [0, 2, 4, 5], 227 / 19), (10, [0, 1, 2], 82 / 14)],
)
def test_worked_examples_by_hand(
    kernels: LibraryRunner,
    isas: list[str],
    lse: str,
    position: int,
    blocks: list[int],
    output: float,
) -> None:
    """All keys 0 but K[9] = 2 ln 2, V[t] = t, q = 1: weight 4 for token 9, 1 for all others."""
    keys = np.zeros((1, position + 1, 1), np.float32)
    keys[0, 9] = 2 * math.log(2)
    values = np.arange(position + 1, dtype=np.float32).reshape(1, -1, 1)
    sparse = dataclasses.replace(TOY, lse=lse)
    fine, coarse = compress_keys(keys, 2, 1), compress_keys(keys, 8, 4)
    call = selection_call(
        np.ones((1, 1, 1), np.float32),
        position,
        sparse,
        fine.astype(np.float32),
        coarse.astype(np.float32),
        "f32",
    )
    for isa in isas:
        rows = kernels.run([(call, isa, 1)])[0]["y"]
        assert rows[0].tolist() == [len(blocks), *blocks, *[-1] * (4 - len(blocks))]
        assert _toy_attention(kernels, isa, keys, values, position, rows) == pytest.approx(output)
    dense = {23: 303 / 27, 10: 82 / 14}[position]
    whole = np.array([[-1, 0, 0, 0, 0]], np.int32)
    assert _toy_attention(kernels, isas[0], keys, values, position, whole) == pytest.approx(dense)


@pytest.mark.parametrize("generation", ["A", "B"])
def test_forced_and_chosen_blocks_at_8192_tokens(
    kernels: LibraryRunner, isas: list[str], generation: str
) -> None:
    rng = np.random.default_rng(1)
    keys = rng.standard_normal((2, 8192, 128)).astype(np.float16)
    q = rng.standard_normal((1, 32, 128)).astype(np.float32)

    def inspect(expected: Selection, actual: Array) -> None:
        local = range(96, 128) if generation == "A" else range(95, 128)
        for head in range(2):
            chosen = set(np.flatnonzero(actual[head, 0]).tolist())
            assert {0, *local} <= chosen and len(chosen) == 96
            assert len(chosen - {0, *local}) == (63 if generation == "A" else 62)

    check = check_selection(q, keys, 8191, _released(generation, "coarse"), inspect)
    run_checks(kernels, [check], isas)


def test_a_key_in_two_windows_can_bring_in_both_blocks(
    kernels: LibraryRunner, isas: list[str]
) -> None:
    """Token 64 lies in window 3, which block 0 pools too: here blocks 10 and 11 share window 43."""
    sparse = SparseConfig(window_size=64, topk=3, init_blocks=0, dense_len=-1)
    keys = np.zeros((1, 2000, 16), np.float32)
    keys[0, 64 * 11] = 40.0
    q = np.ones((1, 4, 16), np.float32)

    def inspect(expected: Selection, actual: Array) -> None:
        assert {10, 11} <= set(np.flatnonzero(actual[0, 0]).tolist())

    run_checks(kernels, [check_selection(q, keys, 1999, sparse, inspect)], isas)


# ---- equal to the reference -----------------------------------------------------------------


def _key_pattern(name: str, rng: np.random.Generator, length: int, head_dim: int) -> Array:
    keys = rng.standard_normal((2, length, head_dim))
    if name == "equal":
        keys[:] = rng.standard_normal((2, 1, head_dim))
    elif name == "zero":
        keys[:] = 0
    elif name == "one huge":
        keys[:, rng.integers(length)] *= 300
    elif name == "two values":
        keys = np.sign(keys[:, :, :1]) * np.ones(head_dim)
    return keys


PATTERNS = ["random", "equal", "zero", "one huge", "two values"]


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("pattern", PATTERNS)
def test_selection_equals_the_reference_at_boundaries(
    kernels: LibraryRunner, isas: list[str], pattern: str, length: int
) -> None:
    rng = np.random.default_rng(length)
    keys = _key_pattern(pattern, rng, length, 64).astype(np.float16)
    found = []
    for generation, lse in GENERATIONS:
        for dense_len in (-1, 8192):
            sparse = _released(generation, lse, dense_len)
            tokens = int(min(length, rng.integers(1, 4)))
            q = rng.standard_normal((tokens, 8, 64)).astype(np.float32) * 3
            found.append(check_selection(q, keys, length - tokens, sparse))
    run_checks(kernels, found, isas[:1], (1, 2, 3))


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("dtype", ["f16", "f32"])
def test_selection_equals_the_reference_at_32768_tokens(
    kernels: LibraryRunner, isas: list[str], pattern: str, dtype: str
) -> None:
    rng = np.random.default_rng(7)
    keys = _key_pattern(pattern, rng, 32768, 128).astype(CACHE_TYPES[dtype])
    q = rng.standard_normal((2, 32, 128)).astype(np.float32) * 2
    found = [
        check_selection(q, keys, 32766, _released(generation, lse))
        for generation, lse in (("A", "exact"), ("B", "coarse"))
    ]
    run_checks(kernels, found, isas)


def test_no_choice_is_a_near_tie_with_random_keys(kernels: LibraryRunner, isas: list[str]) -> None:
    """So most comparisons above are exact ones: ties are detected, not excused."""
    rng = np.random.default_rng(8)
    keys = rng.standard_normal((2, 9000, 64)).astype(np.float16)
    q = rng.standard_normal((4, 8, 64)).astype(np.float32) * 3

    def inspect(expected: Selection, actual: Array) -> None:
        # Neighbours that share their best window tie exactly, and resolve to the smaller block.
        clear = ~expected.near_ties(1e-5) | (expected.margin == 0)
        assert clear.all()
        assert np.array_equal(expected.mask[clear], actual[clear])

    run_checks(kernels, [check_selection(q, keys, 8996, RELEASED, inspect)], isas)


def test_equal_scores_go_to_the_smaller_block(kernels: LibraryRunner, isas: list[str]) -> None:
    """With keys of zero every score is the same number: no rounding, so no room for tolerance."""
    length = 12000
    q = np.ones((1, 16, 16), np.float32)
    for generation, chosen in (("A", range(0, 64)), ("B", range(0, 63))):
        sparse = _released(generation, "coarse")
        fine, coarse = np.zeros((1, 749, 16), np.float32), np.zeros((1, 186, 16), np.float32)
        call = selection_call(q, length - 1, sparse, fine, coarse, "f32")
        last = (length - 1) // 64
        local = range(last - (31 if generation == "A" else 32), last + 1)
        for isa in isas:
            rows = kernels.run([(call, isa, 1)])[0]["y"]
            mask = mask_of(rows, 1, length - 1, last + 1, 64)
            assert np.flatnonzero(mask[0, 0]).tolist() == [*chosen, *local]


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    seed=st.integers(0, 2**32 - 1),
    length=st.integers(1, 1500),
    stride=st.sampled_from([1, 2, 8, 16]),
    ratio=st.sampled_from([1, 2, 4]),
    init_blocks=st.integers(0, 3),
    local_blocks=st.integers(1, 4),
    topk=st.integers(0, 8),
    shape=st.sampled_from([(1, 1, 1), (1, 3, 20), (2, 8, 64), (2, 16, 16)]),
    modes=st.sampled_from(GENERATIONS),
    dense_len=st.sampled_from([-1, 100, 700]),
    pattern=st.sampled_from(PATTERNS),
    dtype=st.sampled_from(COMPRESSED_TYPES),
    tree=st.booleans(),
)
def test_selection_with_any_settings(
    kernels: LibraryRunner,
    isas: list[str],
    seed: int,
    length: int,
    stride: int,
    ratio: int,
    init_blocks: int,
    local_blocks: int,
    topk: int,
    shape: tuple[int, int, int],
    modes: tuple[str, str],
    dense_len: int,
    pattern: str,
    dtype: layout.CacheType,
    tree: bool,
) -> None:
    rng = np.random.default_rng(seed)
    _, group, head_dim = shape
    block_size = stride * ratio
    sparse = SparseConfig(
        2 * stride,
        stride,
        init_blocks,
        block_size,
        local_blocks * block_size,
        topk,
        dense_len,
        *modes,
    )
    keys = _key_pattern(pattern, rng, length, head_dim)[: shape[0]].astype(np.float32)
    tokens = int(min(length, rng.integers(1, 30)))
    q = rng.standard_normal((tokens, shape[0] * group, head_dim)).astype(np.float32) * 2
    parents = [int(rng.integers(-1, i)) for i in range(tokens)] if tree else None
    check = check_selection(q, keys, length - tokens, sparse, dtype=dtype, parents=parents)
    run_checks(kernels, [check], isas, (1, 2, 3, 8))


def _windows_128k(name: str, rng: np.random.Generator) -> tuple[Array, Array]:
    """Fine and coarse windows of 131,072 keys of two heads of 128, without the keys."""
    means = rng.standard_normal((2, 4 * 2047 + 3, 128)).astype(np.float32) * 0.3
    if name == "smooth":  # neighbours alike, as in text, and a bias that all keys share
        for _ in range(4):
            means[:, 1:] = 0.7 * means[:, :-1] + means[:, 1:]
        means += rng.standard_normal((2, 1, 128)) * 2
    # Every other fine window tiles a coarse one.
    return means, sum(means[:, i : i + 4 * 2046 + 1 : 4] for i in (0, 2, 4, 6)) / np.float32(4)


@pytest.mark.parametrize("tokens", [1, 21])
@pytest.mark.parametrize("pattern", ["noise", "smooth"])
@pytest.mark.parametrize("dtype", COMPRESSED_TYPES)
def test_selection_equals_the_reference_at_131072_tokens(
    kernels: LibraryRunner,
    isas: list[str],
    pattern: str,
    dtype: layout.CacheType,
    tokens: int,
) -> None:
    rng = np.random.default_rng(17)
    fine, coarse = _windows_128k(pattern, rng)
    q = rng.standard_normal((tokens, 32, 128)).astype(np.float32) * 2

    def inspect(expected: Selection, actual: Array) -> None:
        assert (actual == expected.mask).mean(where=expected.mask) >= 0.99

    check = check_windows(q, fine, coarse, 131072 - tokens, RELEASED, dtype, inspect)
    run_checks(kernels, [check], isas, (1, 2, 5))


@pytest.mark.parametrize("dtype", COMPRESSED_TYPES)
def test_a_row_of_selection_does_not_depend_on_its_neighbours(
    kernels: LibraryRunner, isas: list[str], dtype: layout.CacheType
) -> None:
    """A path through a tree selects what a tree of that path alone does."""
    rng = np.random.default_rng(18)
    sparse = SparseConfig(window_size=128, topk=4, dense_len=-1)
    keys = rng.standard_normal((2, 1000, 32)).astype(np.float32)
    q = rng.standard_normal((20, 8, 32)).astype(np.float32) * 2
    parents = [-1, 0, 0, 1, 2, 2, 5, 6, *range(7, 19)]
    whole = check_selection(q, keys, 980, sparse, dtype=dtype, parents=parents).call
    path = [0, 2, 5, *range(6, 20)]
    shorter = [i - 1 for i in range(len(path))]
    some = check_selection(q[path], keys[:, : 980 + len(path)], 980, sparse, None, dtype, shorter)
    for isa in isas:
        rows = kernels.run([(whole, isa, 3)])[0]["y"]
        assert np.array_equal(kernels.run([(some.call, isa, 1)])[0]["y"], rows[path])


@pytest.mark.parametrize("isa_index", [0, -1])
def test_selection_does_not_depend_on_how_tokens_were_appended(
    kernels: LibraryRunner, isas: list[str], isa_index: int
) -> None:
    rng = np.random.default_rng(9)
    sparse = SparseConfig(window_size=128, topk=4, dense_len=500)
    keys = rng.standard_normal((2, 1000, 32)).astype(np.float16)
    q = rng.standard_normal((600, 8, 32)).astype(np.float32)
    whole = check_selection(q, keys, 400, sparse).call
    rows = kernels.run([(whole, isas[isa_index], 2)])[0]["y"]
    for t in (0, 99, 100, 111, 112, 559, 599):
        part = check_selection(q[t : t + 1], keys[:, : 401 + t], 400 + t, sparse).call
        alone = kernels.run([(part, isas[isa_index], 1)])[0]["y"]
        assert np.array_equal(alone[0], rows[t])


# ---- sparse equals dense ----------------------------------------------------------------------


@pytest.mark.parametrize("length", [1, 63, 64, 65, 700, 2049, 6143, 6144])
@pytest.mark.parametrize("generation", ["A", "B"])
def test_sparse_equals_dense_up_to_6144_tokens(
    kernels: LibraryRunner, isas: list[str], generation: str, length: int
) -> None:
    """96 blocks of 64 are all that such a query can see; the bits are the same, too."""
    rng = np.random.default_rng(length)
    keys, values = rng.standard_normal((2, 2, length, 64)).astype(np.float16)
    q = rng.standard_normal((1, 16, 64)).astype(np.float32)
    sparse = _released(generation, "coarse")
    select = check_selection(q, keys, length - 1, sparse).call
    blocks = -(-length // 64)
    caches = {
        "key": packing.key_cache(keys, blocks),
        "value": packing.value_cache(values, blocks),
    }
    for isa in isas[:1]:
        rows = kernels.run([(select, isa, 1)])[0]["y"]
        assert (rows.reshape(2, -1)[:, 0] == blocks).all()
        outputs = []
        for kernel in ("attention", "block_sparse_attention"):
            call = Call(kernel, 1, length - 1, attributes={"heads": 16, "scale": 0.125})
            call.add("q", q.reshape(1, -1)).add("key", caches["key"]).add("value", caches["value"])
            if kernel == "block_sparse_attention":
                call.attributes["block_size"] = 64
                call.add("blocks", rows)
            call.add("y", np.zeros((1, 16 * 64), np.float32))
            outputs.append(kernels.run([(call, isa, 2)])[0]["y"])
        assert np.array_equal(*outputs)


def test_a_dense_row_of_block_sparse_attention_is_attention(
    kernels: LibraryRunner, isas: list[str]
) -> None:
    rng = np.random.default_rng(10)
    keys, values = rng.standard_normal((2, 1, 900, 32)).astype(np.float32)
    q = rng.standard_normal((7, 6 * 32)).astype(np.float32)
    outputs = []
    for kernel in ("attention", "block_sparse_attention"):
        call = Call(kernel, 7, 893, attributes={"heads": 6, "scale": 0.2}).add("q", q)
        call.add("key", packing.key_cache(keys, 15)).add("value", packing.value_cache(values, 15))
        if kernel == "block_sparse_attention":
            call.attributes["block_size"] = 64
            call.add("blocks", block_rows([[None]] * 7, 5))
        call.add("y", np.zeros_like(q))
        outputs.append(kernels.run([(call, isas[0], 2)])[0]["y"])
    assert np.array_equal(*outputs)


# ---- compression by increments ------------------------------------------------------------------


@pytest.mark.parametrize("dtype", layout.CACHE_TYPES)
@pytest.mark.parametrize(("window", "stride"), [(32, 16), (128, 64), (2, 1), (8, 4)])
def test_incremental_compression_equals_batch_compression(
    kernels: LibraryRunner, isas: list[str], window: int, stride: int, dtype: layout.CacheType
) -> None:
    """For every length up to 1,000, the same bits, also after rolling back."""
    length, head_dim = 1000, 8
    compressed: layout.CacheType = "i8" if dtype == "u4" else dtype
    keys = np.random.default_rng(11).standard_normal((2, length, head_dim)).astype(np.float32)
    call = compression_call(keys, 0, dtype, compressed, window, stride)

    def windows(cache: Array, count: int) -> Array:
        return layout.unpack_keys(cache, count, head_dim, compressed)

    for isa in isas:
        state = aligned(call.buffers)
        whole = []
        for n in range(1, length + 1):
            batch = aligned(call.buffers)
            step = dataclasses.replace(call, past=0, tokens=n)
            kernels.run_in_place(step, batch, isa)
            whole.append(batch["out"])
            kernels.run_in_place(dataclasses.replace(call, past=n - 1, tokens=1), state, isa)
            assert np.array_equal(state["out"], batch["out"])
        # Back to a shorter sequence and on with other keys: only windows that lie wholly before
        # the cut may keep their values, and those are right as they are.
        rng = np.random.default_rng(12)
        for back in (999, 640, 129, 127, 33, 31, 1):
            cut = keys.copy()
            cut[:, back:] = rng.standard_normal(cut[:, back:].shape)
            fresh = {**call.buffers, "key": layout.pack_keys(cut, 16, dtype)}
            state["key"][...] = fresh["key"]
            batch = aligned(fresh)
            kernels.run_in_place(dataclasses.replace(call, tokens=length), batch, isa)
            at = back
            while at < length:
                tokens = int(min(length - at, rng.integers(1, 200)))
                step = dataclasses.replace(call, past=at, tokens=tokens)
                kernels.run_in_place(step, state, isa)
                at += tokens
            count = window_count(length, window, stride)
            ours = windows(state["out"], count)
            kept = window_count(back, window, stride)
            assert np.array_equal(ours[:, kept:], windows(batch["out"], count)[:, kept:])
            assert np.array_equal(ours[:, :kept], windows(whole[back - 1], kept))
            state = aligned(call.buffers)
            kernels.run_in_place(dataclasses.replace(call, tokens=length), state, isa)


@pytest.mark.parametrize("dtype", layout.CACHE_TYPES)
def test_accepted_drafts_are_compressed_after_they_were_compacted(
    kernels: LibraryRunner, isas: list[str], dtype: layout.CacheType
) -> None:
    """A tree compresses nothing; a plain call over what was accepted does what is missing."""
    rng = np.random.default_rng(14)
    keys = rng.standard_normal((2, 300, 16)).astype(np.float32)
    call = compression_call(keys, 0, dtype, "f16" if dtype == "u4" else dtype)
    for isa in isas:
        state = aligned(call.buffers)
        kernels.run_in_place(dataclasses.replace(call, tokens=250), state, isa)
        before = state["out"].copy()
        drafts = dataclasses.replace(call, past=250, tokens=50).tree(range(-1, 49))
        kernels.run_in_place(drafts, state, isa)
        assert np.array_equal(state["out"], before, equal_nan=True)
        kernels.run_in_place(dataclasses.replace(call, past=250, tokens=50), state, isa)
        whole = kernels.run([(dataclasses.replace(call, tokens=300), isa, 1)])[0]["out"]
        assert not np.array_equal(before, whole) and np.array_equal(state["out"], whole)


def test_the_checks_above_can_fail(kernels: LibraryRunner, isas: list[str]) -> None:
    rng = np.random.default_rng(13)
    keys = rng.standard_normal((1, 3000, 32)).astype(np.float32)
    q = rng.standard_normal((1, 4, 32)).astype(np.float32)
    sparse = SparseConfig(window_size=64, topk=4, dense_len=-1)
    check = check_selection(q, keys, 2999, sparse)
    wrong = dataclasses.replace(check.call)
    wrong.buffers = {**check.call.buffers, "q": -check.call.buffers["q"]}
    with pytest.raises(AssertionError, match="differ beyond ties"):
        run_checks(kernels, [Check(wrong, check.verify)], isas)
