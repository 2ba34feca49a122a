"""The CPU's own schedules (``kernels/*/tir_cpu.py``) against the references."""

from __future__ import annotations

import importlib.util
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from numpy.typing import NDArray

from arkinfer.config import SparseConfig
from arkinfer.kernels.attention.reference import attention
from arkinfer.kernels.block_sparse_attention.reference import block_sparse_attention
from arkinfer.kernels.embed.reference import embed
from arkinfer.kernels.matmul.reference import matmul
from arkinfer.kernels.rms_norm.reference import rms_norm
from arkinfer.kernels.rope.reference import rope
from arkinfer.kernels.swiglu.reference import swiglu
from arkinfer.quantize.schemes import GroupScheme, QuantizedTensor
from tests.support import packing

pytestmark = pytest.mark.platform
if importlib.util.find_spec("tvm") is None:
    pytest.skip("needs TVM: pip install 'arkinfer[tvm]'", allow_module_level=True)

from arkinfer.kernels.attention import tir as attention_tir  # noqa: E402
from arkinfer.kernels.attention import tir_cpu as attention_cpu  # noqa: E402
from arkinfer.kernels.cache_append import tir_cpu as append_cpu  # noqa: E402
from arkinfer.kernels.compress_keys.tir import window_capacity  # noqa: E402
from arkinfer.kernels.embed import tir_cpu as embed_cpu  # noqa: E402
from arkinfer.kernels.matmul import tir_cpu as matmul_cpu  # noqa: E402
from arkinfer.kernels.rms_norm import tir_cpu as norm_cpu  # noqa: E402
from arkinfer.kernels.rope import tir_cpu as rope_cpu  # noqa: E402
from arkinfer.kernels.select_blocks import tir as select_tir  # noqa: E402
from arkinfer.kernels.select_blocks import tir_cpu as select_cpu  # noqa: E402
from arkinfer.kernels.swiglu import tir_cpu as swiglu_cpu  # noqa: E402
from arkinfer.tir.caches import Caches  # noqa: E402
from arkinfer.tir.loops import Rows  # noqa: E402
from arkinfer.tir.panels import Panels  # noqa: E402
from tests.support.tir_runner import HostRunner  # noqa: E402

Array = NDArray[Any]
TOLERANCE = 2e-6
RUNNER = HostRunner()

SCHEMES: list[Any] = [
    GroupScheme(4, 32, "minimum", "fp16"),
    GroupScheme(4, 48, "zero_point", "fp32"),
    GroupScheme(4, 32, "symmetric", "fp16"),
    GroupScheme(8, 96, "symmetric", "fp16"),
    GroupScheme(8, 32, "zero_point", "fp16"),
    GroupScheme(8, 32, "minimum", "fp32"),
    GroupScheme(2, 96, "symmetric", "fp32"),
    "f32",
    "f16",
    "bf16",
]


def normal(rng: np.random.Generator, *shape: int) -> NDArray[np.float32]:
    return rng.standard_normal(shape).astype(np.float32)


def blank(*shape: int) -> NDArray[np.float32]:
    return np.full(shape, np.nan, np.float32)


def error(found: Array, expected: Array) -> float:
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def weight(storage: Any, outputs: int, inputs: int) -> tuple[Panels, dict[str, Array], Array]:
    """A random weight: its layout, its buffers in it, and its numbers."""
    rng = np.random.default_rng(outputs)
    panels = Panels(outputs, inputs, storage)
    nothing = np.zeros(1, np.float32)
    if not isinstance(storage, GroupScheme):
        types = {"f32": np.float32, "f16": np.float16, "bf16": ml_dtypes.bfloat16}
        values = normal(rng, outputs, inputs).astype(types[storage])
        packed = packing.panels(values)
        codes = packed.view(np.uint16) if storage == "bf16" else packed
        given = {"codes": codes, "scales": nothing.astype(np.float16)}
        return panels, {**given, "offsets": given["scales"]}, values.astype(np.float32)
    groups = (outputs, inputs // storage.group_size)
    floats = np.float16 if storage.scale_dtype == "fp16" else np.float32
    scales = (rng.random(groups) * 0.01).astype(floats)
    codes = rng.integers(0, 3 if storage.bits == 2 else 1 << storage.bits, (outputs, inputs))
    offsets: Any = None
    stored: Array = np.zeros(groups, floats)
    if storage.offset == "zero_point":
        offsets = rng.integers(0, 1 << storage.bits, groups).astype(np.uint8)
        stored = offsets if storage.bits == 4 else (offsets.astype(np.int16) - 128).astype(np.int8)
    elif storage.offset == "minimum":
        stored = normal(rng, *groups).astype(floats)
        offsets = stored.astype(np.float32)
    pack = {2: packing.codes2, 4: packing.codes4, 8: packing.codes8}[storage.bits]
    tensor = QuantizedTensor(storage, codes.astype(np.uint8), scales.astype(np.float32), offsets)
    buffers = {
        "codes": pack(codes).view(np.uint8).reshape(-1).view(np.uint32),
        "scales": packing.panels(scales),
        "offsets": packing.panels(stored),
    }
    return panels, buffers, tensor.dequantize()


@pytest.mark.parametrize("storage", SCHEMES, ids=str)
def test_embed(storage: Any) -> None:
    panels, buffers, values = weight(storage, 50, 96)
    ids = np.array([3, 49, 0], np.int32)
    kernel = embed_cpu.embed(RUNNER.loops, panels, Rows(96, 96), 12.0)
    got = RUNNER.run(kernel, {**buffers, "ids": ids, "y": blank(3, 96), "tokens": 3})
    assert error(got["y"], embed(ids, values, 12.0)) < TOLERANCE


@pytest.mark.parametrize("schedule", ["few_rows", "many_rows"])
@pytest.mark.parametrize(
    ("index", "tokens", "residual"),
    [
        (0, 3, "separate"),
        (1, 1, "in_place"),
        (2, 5, "none"),
        (3, 13, "in_place"),
        (4, 2, "none"),
        (5, 4, "none"),
        (6, 7, "separate"),
        (7, 1, "none"),
        (8, 8, "in_place"),
        (9, 3, "none"),
    ],
)
def test_matmul(index: int, tokens: int, residual: str, schedule: str) -> None:
    outputs = 48 if index % 2 else 50  # whole panels, and one that is padded
    panels, buffers, values = weight(SCHEMES[index], outputs, 96)
    rng = np.random.default_rng(tokens)
    x, y, addend = normal(rng, tokens, 100), normal(rng, tokens, 70), normal(rng, tokens, 60)
    x_rows, y_rows, addend_rows = Rows(96, 100, 4), Rows(outputs, 70, 10), Rows(outputs, 60, 2)
    describe: Any = getattr(matmul_cpu, schedule)
    kernel = describe(RUNNER.loops, panels, x_rows, y_rows, residual, addend_rows, 1 / 3)
    sums = x[:, 4:].reshape(tokens, panels.groups, panels.group).sum(axis=2)
    given = {**buffers, "x": x, "y": y, "residual": addend, "sums": sums, "tokens": tokens}
    got = RUNNER.run(kernel, given)["y"]
    added = {"none": None, "separate": addend[:, 2 : 2 + outputs]}.get(
        residual, y[:, 10 : 10 + outputs]
    )
    assert error(got[:, 10 : 10 + outputs], matmul(x[:, 4:], values, added, 1 / 3)) < 5e-6
    assert np.array_equal(got[:, :10], y[:, :10])
    assert np.array_equal(got[:, 10 + outputs :], y[:, 10 + outputs :])


@pytest.mark.parametrize("group", [32, 24, 36])
def test_group_sums(group: int) -> None:
    x = normal(np.random.default_rng(group), 3, 2 * group + 8)
    panels = Panels(16, 2 * group, GroupScheme(4, group))
    rows = Rows(2 * group, x.shape[1], 8)
    kernel = matmul_cpu.group_sums(RUNNER.loops, panels, rows)
    got = RUNNER.run(kernel, {"x": x, "sums": blank(3, 2), "tokens": 3})
    assert error(got["sums"], x[:, 8:].reshape(3, 2, group).sum(axis=2)) < TOLERANCE


@pytest.mark.parametrize("columns", [96, 7, 130])
def test_rms_norm(columns: int) -> None:
    rng = np.random.default_rng(columns)
    x, scale = normal(rng, 3, columns + 5), normal(rng, columns)
    kernel = norm_cpu.rms_norm(
        RUNNER.loops, Rows(columns, columns + 5, 4), Rows(columns, columns), 1e-5
    )
    got = RUNNER.run(kernel, {"x": x, "weight": scale, "y": blank(3, columns), "tokens": 3})
    assert error(got["y"], rms_norm(x[:, 4:-1], scale, 1e-5)) < TOLERANCE


@pytest.mark.parametrize("columns", [96, 520, 7])
def test_swiglu(columns: int) -> None:
    both = normal(np.random.default_rng(5), 3, 2 * columns + 8) * 10
    both[0, 0], both[0, 1] = 1e4, -1e4
    stride = both.shape[1]
    rows = [Rows(columns, stride), Rows(columns, stride, columns + 8), Rows(columns, columns)]
    kernel = swiglu_cpu.swiglu(RUNNER.loops, *rows)
    given = {"gate": both, "up": both, "y": blank(3, columns), "tokens": 3}
    got = RUNNER.run(kernel, given)
    assert error(got["y"], swiglu(both[:, :columns], both[:, columns + 8 :])) < TOLERANCE


@pytest.mark.parametrize("head_dim", [64, 72])
def test_rope(head_dim: int) -> None:
    rng = np.random.default_rng(head_dim)
    x, table = normal(rng, 3, 3 * head_dim + 8), normal(rng, 3, head_dim)
    rows = Rows(3 * head_dim, x.shape[1], 8)
    kernel = rope_cpu.rope(RUNNER.loops, rows, head_dim)
    got = RUNNER.run(kernel, {"x": x, "table": table, "tokens": 3})["x"]
    assert error(got[:, 8:], rope(x[:, 8:], table, head_dim)) < TOLERANCE


@pytest.mark.parametrize(
    ("dtype", "heads", "head_dim", "tokens", "past", "splits", "most"),
    [
        ("f32", 6, 64, 1, 200, 8, 0),
        ("f16", 32, 24, 3, 90, 8, 0),
        ("f16", 6, 64, 20, 70, 1, 0),
        ("f32", 32, 8, 19, 0, 1, 0),
        ("f32", 6, 64, 2, 250, 8, 4),
        ("f16", 32, 16, 17, 140, 1, 3),
    ],
)
def test_attention(
    dtype: Any, heads: int, head_dim: int, tokens: int, past: int, splits: int, most: int
) -> None:
    rng = np.random.default_rng(heads)
    total, size = past + tokens, 16 if most else 64
    capacity = -(-total // 64) * 64
    numpy_type = np.float32 if dtype == "f32" else np.float16
    keys, values = (normal(rng, 2, total, head_dim).astype(numpy_type) for _ in range(2))
    q = normal(rng, tokens, heads * head_dim)
    shape = attention_tir.Shape(
        Caches(dtype, 2, head_dim, halves=True), heads, head_dim**-0.5, splits, most, size
    )
    rows = Rows(heads * head_dim, heads * head_dim)
    blocks = np.full((tokens, 2 * (1 + most)), -1, np.int32)
    mask = np.ones((2, tokens, -(-total // size)), bool)
    for t in range(tokens if most else 0):
        last = (past + t) // size
        for head in range(2 if t else 1):  # one row keeps all its blocks
            chosen = [*sorted(rng.permutation(last)[: most - 1]), last]
            at = head * (1 + most)
            blocks[t, at : at + 1 + len(chosen)] = [len(chosen), *chosen]
            mask[head, t] = np.isin(np.arange(mask.shape[2]), chosen)
    given = {
        "q": q,
        "key": packing.key_cache(keys, capacity // 64, 0.5),
        "value": packing.value_cache(values, capacity // 64, 0.5),
        "blocks": blocks,
        "y": blank(tokens, heads * head_dim),
        "partials": blank(tokens, heads, splits, shape.partial),
        "tokens": tokens,
        "past": past,
        "capacity": capacity,
    }
    got = RUNNER.run(attention_cpu.attend(RUNNER.loops, shape, rows, rows), given)
    if splits > 1:
        joined = {"partials": got["partials"], "y": given["y"], "tokens": tokens}
        got = RUNNER.run(attention_tir.combine(RUNNER.loops, shape, rows), joined)
    queries = q.reshape(tokens, heads, head_dim)
    floats = keys.astype(np.float32), values.astype(np.float32)
    if most:
        expected = block_sparse_attention(queries, *floats, mask, past, head_dim**-0.5, size)
    else:
        expected = attention(queries, *floats, past, head_dim**-0.5)
    assert error(got["y"].ravel(), expected.ravel()) < 5e-6


@pytest.mark.parametrize("dtype", ["f32", "f16"])
def test_cache_append(dtype: Any) -> None:
    rng = np.random.default_rng(8)
    kv_heads, head_dim, past, tokens, capacity = 2, 12, 60, 9, 128
    numpy_type = np.float32 if dtype == "f32" else np.float16
    old = normal(rng, kv_heads, past, head_dim).astype(numpy_type)
    new = normal(rng, tokens, kv_heads * head_dim)
    new[0, :5] = [1e6, -1e-7, 6e-5, 0, -65519]  # beyond, below and at the edges of halves
    caches = Caches(dtype, kv_heads, head_dim, halves=True)
    kernel = append_cpu.cache_append(RUNNER.loops, caches, Rows(24, 30, 2), Rows(24, 24))
    key, value = packing.key_cache(old, 2, 0.5), packing.value_cache(old, 2, 0.5)
    wide = np.pad(new, ((0, 0), (2, 4)))
    given = {"k": wide, "v": new[::-1].copy(), "key": key, "value": value}
    got = RUNNER.run(kernel, {**given, "tokens": tokens, "past": past, "capacity": capacity})
    for name, rows, pack in (
        ("key", new, packing.key_cache),
        ("value", new[::-1], packing.value_cache),
    ):
        added = rows.reshape(tokens, kv_heads, head_dim).swapaxes(0, 1)
        bounded = added if dtype == "f32" else np.clip(added, -65504, 65504)
        expected = np.concatenate([old, bounded.astype(numpy_type)], axis=1)
        assert np.array_equal(got[name], pack(expected, 2, 0.5))


@pytest.mark.parametrize(
    ("dtype", "per_head", "head_dim", "past", "tokens", "exact"),
    [("f32", 3, 16, 300, 5, True), ("f16", 16, 32, 3000, 1, False), ("f32", 2, 8, 0, 40, False)],
)
def test_scores_of_selection(
    dtype: Any, per_head: int, head_dim: int, past: int, tokens: int, exact: bool
) -> None:
    """Against the portable schedules, which test_kernels.py holds to the reference."""
    rng = np.random.default_rng(past)
    heads, capacity = 2 * per_head, 64 * (-(-(past + tokens) // 64) + 1)
    caches = Caches(dtype, 2, head_dim, halves=True)
    sparse = SparseConfig(8, 4, 1, 16, 48, 6, -1, "A", "exact" if exact else "coarse")
    selection = select_tir.Selection(caches, heads, head_dim**-0.5, sparse)
    places = int(window_capacity(capacity, 4))
    numpy_type = np.float32 if dtype == "f32" else np.float16
    keys = normal(rng, 2, places // 64, head_dim, 64).astype(numpy_type)
    q, rows = normal(rng, tokens, heads * head_dim) * 4, Rows(heads * head_dim, heads * head_dim)
    call = {"q": q, "tokens": tokens, "past": past, "capacity": capacity}
    found: list[tuple[Array, Array]] = []
    for schedule in (select_cpu, select_tir):
        kernel = schedule.normalizers(RUNNER.loops, selection, rows)
        given = {**call, "basis": keys, "lse": blank(tokens, heads)}
        lse = RUNNER.run(kernel, given)["lse"]
        kernel = schedule.window_scores(RUNNER.loops, selection, rows)
        shared = found[0][0] if found else lse
        given = {**call, "fine": keys, "lse": shared, "windows": blank(tokens, 2, places)}
        found.append((lse, RUNNER.run(kernel, given)["windows"]))
    for ours, theirs in zip(*found, strict=True):
        seen = np.isfinite(theirs) & (theirs > -1e29)
        assert seen.any() and np.array_equal(seen, np.isfinite(ours) & (ours > -1e29))
        assert error(ours[seen], theirs[seen]) < 5e-6
