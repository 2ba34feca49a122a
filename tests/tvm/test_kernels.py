"""Every kernel described in TIR against its reference: on this CPU, as OpenCL C, WGSL and Metal."""

from __future__ import annotations

import importlib.util
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from arkinfer.config import SparseConfig
from arkinfer.errors import DeviceError
from arkinfer.kernels.attention.reference import attention
from arkinfer.kernels.block_sparse_attention.reference import block_sparse_attention
from arkinfer.kernels.compress_keys.reference import compress_keys, window_count
from arkinfer.kernels.embed.reference import embed
from arkinfer.kernels.logit_statistics.reference import logit_statistics
from arkinfer.kernels.matmul.reference import matmul
from arkinfer.kernels.rms_norm.reference import rms_norm
from arkinfer.kernels.rope.reference import rope
from arkinfer.kernels.rope_table.reference import rope_table
from arkinfer.kernels.select_blocks.reference import select_blocks
from arkinfer.kernels.swiglu.reference import swiglu
from arkinfer.quantize.schemes import GroupScheme, QuantizedTensor
from arkinfer.tir.matrix import Matrix

pytestmark = pytest.mark.platform
if importlib.util.find_spec("tvm") is None:
    pytest.skip("needs TVM: pip install 'arkinfer[tvm]'", allow_module_level=True)

from arkinfer.kernels.attention import tir as attention_tir  # noqa: E402
from arkinfer.kernels.block_sparse_attention import tir as sparse_tir  # noqa: E402
from arkinfer.kernels.cache_append import tir as append_tir  # noqa: E402
from arkinfer.kernels.cache_append import tir_rotated as rotated_tir  # noqa: E402
from arkinfer.kernels.compress_keys import tir as compress_tir  # noqa: E402
from arkinfer.kernels.embed import tir as embed_tir  # noqa: E402
from arkinfer.kernels.logit_statistics import tir as statistics_tir  # noqa: E402
from arkinfer.kernels.matmul import tir as matmul_tir  # noqa: E402
from arkinfer.kernels.rms_norm import tir as norm_tir  # noqa: E402
from arkinfer.kernels.rope import tir as rope_tir  # noqa: E402
from arkinfer.kernels.rope_table import tir as table_tir  # noqa: E402
from arkinfer.kernels.select_blocks import tir as select_tir  # noqa: E402
from arkinfer.kernels.swiglu import tir as swiglu_tir  # noqa: E402
from arkinfer.tir.caches import Caches  # noqa: E402
from arkinfer.tir.loops import Rows  # noqa: E402
from tests.support import cuda_program  # noqa: E402
from tests.support.device_caches import cache_words  # noqa: E402
from tests.support.metal_runner import MetalRunner, compiler  # noqa: E402
from tests.support.tir_runner import (  # noqa: E402
    PLATFORM,
    CudaRunner,
    HostRunner,
    OpenClRunner,
    Runner,
    WebGpuRunner,
    opencl_platforms,
)

Array = NDArray[Any]
# Sums of some hundred float32 products against float64.
TOLERANCE = 2e-6
# The same where inputs and products are fp16.
HALF_TOLERANCE = 1.5e-3


@pytest.fixture(scope="module", params=["llvm", "opencl", "webgpu", "metal", "cuda"])
def runner(request: pytest.FixtureRequest) -> Runner:
    if request.param == "llvm":
        return HostRunner()
    if request.param == "metal":
        if compiler() is None:
            pytest.skip("needs a C++ compiler, to run Metal's text on the CPU")
        return MetalRunner()
    if request.param == "cuda":
        if not cuda_program.WANTED:
            pytest.skip("needs a CUDA device and ARK_TEST_CUDA=device")
        return CudaRunner()
    if request.param == "webgpu":
        if importlib.util.find_spec("wgpu") is None:
            pytest.skip("needs wgpu: pip install 'arkinfer[webgpu]'")
        try:
            return WebGpuRunner()
        except DeviceError:
            pytest.skip("needs a Vulkan driver (Debian's mesa-vulkan-drivers)")
    if PLATFORM not in opencl_platforms():
        pytest.skip(f"needs {PLATFORM} (PoCL is Debian's pocl-opencl-icd) and pyopencl")
    return OpenClRunner(PLATFORM)


def normal(rng: np.random.Generator, *shape: int) -> NDArray[np.float32]:
    return rng.standard_normal(shape).astype(np.float32)


def blank(*shape: int) -> NDArray[np.float32]:
    return np.full(shape, np.nan, np.float32)


def error(found: Array, expected: Array) -> float:
    return float(np.abs(found - expected).max() / np.abs(expected).max())


@pytest.mark.parametrize("columns", [96, 1, 130])
def test_rms_norm(runner: Runner, columns: int) -> None:
    rng = np.random.default_rng(columns)
    x, weight = normal(rng, 3, columns + 5), normal(rng, columns)
    rows = Rows(columns, columns + 5, 4)
    kernel = norm_tir.rms_norm(runner.loops, rows, Rows(columns, columns), 1e-5)
    got = runner.run(kernel, {"x": x, "weight": weight, "y": blank(3, columns), "tokens": 3})
    assert error(got["y"], rms_norm(x[:, 4:-1], weight, 1e-5)) < TOLERANCE


@pytest.mark.parametrize("head_dim", [64, 10])
def test_rope(runner: Runner, head_dim: int) -> None:
    rng = np.random.default_rng(head_dim)
    x, table = normal(rng, 4, 3 * head_dim + 2), normal(rng, 4, head_dim)
    kernel = rope_tir.rope(runner.loops, Rows(3 * head_dim, 3 * head_dim + 2, 2), head_dim)
    got = runner.run(kernel, {"x": x, "table": table, "tokens": 4})["x"]
    assert error(got[:, 2:], rope(x[:, 2:], table, head_dim)) < TOLERANCE
    assert np.array_equal(got[:, :2], x[:, :2])


@pytest.mark.parametrize(("past", "total"), [(0, 3), (131000, 131003)])
def test_rope_table(runner: Runner, past: int, total: int) -> None:
    short = (1 / 10000 ** (np.arange(36) / 36)).astype(np.float32)
    long = short * np.float32(0.7)
    kernel = table_tir.rope_table(runner.loops, 72, 4096, 1.25)
    given = {"short": short, "long": long, "y": blank(3, 72)}
    got = runner.run(kernel, {**given, "tokens": 3, "past": past, "total": total})
    expected = rope_table(past, 3, total, short, long, 4096, 1.25)
    assert np.abs(got["y"] - expected).max() < 5e-7


def test_swiglu(runner: Runner) -> None:
    rng = np.random.default_rng(5)
    both = normal(rng, 3, 200) * 10
    both[0, 0], both[0, 1] = 1e4, -1e4
    rows = [Rows(96, 200), Rows(96, 200, 104), Rows(96, 96)]
    kernel = swiglu_tir.swiglu(runner.loops, *rows)
    got = runner.run(kernel, {"gate": both, "up": both, "y": blank(3, 96), "tokens": 3})
    assert error(got["y"], swiglu(both[:, :96], both[:, 104:])) < TOLERANCE


def test_more_groups_than_an_axis_has(runner: Runner) -> None:
    """WebGPU has 65,535 on an axis, and folds the rest; others must not mind."""
    columns = 65540 * 64 - 3
    both = np.linspace(-4, 4, columns, dtype=np.float32).reshape(1, -1)
    rows = [Rows(columns, columns)] * 3
    kernel = swiglu_tir.swiglu(runner.loops, *rows)
    got = runner.run(kernel, {"gate": both, "up": both, "y": blank(1, columns), "tokens": 1})
    assert error(got["y"], swiglu(both, both)) < TOLERANCE


def test_logit_statistics(runner: Runner) -> None:
    rng = np.random.default_rng(6)
    logits = normal(rng, 3, 1000) * 4
    logits[1, [70, 900]] = 30  # a tie goes to the smaller token
    given = {"logits": logits, "best": np.zeros(3, np.int32), "statistics": blank(3, 2)}
    kernel = statistics_tir.logit_statistics(runner.loops, Rows(1000, 1000))
    got = runner.run(kernel, {**given, "tokens": 3})
    best, statistics = logit_statistics(logits)
    assert np.array_equal(got["best"], best)
    assert error(got["statistics"], statistics) < TOLERANCE


# ---- weights -----------------------------------------------------------------------------------

SCHEMES = [
    GroupScheme(4, 32, "minimum", "fp16"),
    GroupScheme(4, 48, "zero_point", "fp32"),
    GroupScheme(8, 96, "symmetric", "fp16"),
    GroupScheme(2, 96, "symmetric", "fp32"),
    "f32",
    "f16",
    "bf16",
]


def weight(storage: Any, outputs: int, inputs: int) -> tuple[Matrix, Array, Array, Array]:
    """A random weight: its layout, codes and scales in it, and its numbers."""
    import ml_dtypes

    rng = np.random.default_rng(outputs)
    matrix = Matrix(outputs, inputs, storage)
    if not isinstance(storage, GroupScheme):
        types = {"f32": np.float32, "f16": np.float16, "bf16": ml_dtypes.bfloat16}
        values = rng.standard_normal((outputs, inputs)).astype(types[storage])
        return matrix, matrix.pack(values)[0], np.zeros(1, np.uint32), values.astype(np.float32)
    groups = (outputs, inputs // storage.group_size)
    scales = (rng.random(groups) * 0.01).astype(np.float16).astype(np.float32)
    scales[0, 0] = np.float16(3e-6)  # subnormal
    codes = rng.integers(0, 3 if storage.bits == 2 else 1 << storage.bits, (outputs, inputs))
    offsets: Any = None
    if storage.offset == "zero_point":
        offsets = rng.integers(0, 1 << storage.bits, groups).astype(np.uint8)
    elif storage.offset == "minimum":
        offsets = rng.standard_normal(groups).astype(np.float16).astype(np.float32)
    tensor = QuantizedTensor(storage, codes.astype(np.uint8), scales, offsets)
    words, scale_words = matrix.pack(tensor)
    assert scale_words is not None
    assert words.nbytes == matrix.code_bytes and scale_words.nbytes == matrix.scale_bytes
    return matrix, words, scale_words, tensor.dequantize()


@pytest.mark.parametrize("storage", SCHEMES, ids=str)
def test_embed(runner: Runner, storage: Any) -> None:
    matrix, codes, scales, values = weight(storage, 50, 96)
    ids = np.array([3, 49, 0], np.int32)
    kernel = embed_tir.embed(runner.loops, matrix, Rows(96, 96), 12.0)
    given = {"ids": ids, "codes": codes, "scales": scales, "y": blank(3, 96)}
    got = runner.run(kernel, {**given, "tokens": 3})
    assert error(got["y"], embed(ids, values, 12.0)) < TOLERANCE


@pytest.mark.parametrize("schedule", ["few_rows", "many_rows"])
@pytest.mark.parametrize(
    ("storage", "tokens", "residual"),
    [
        (SCHEMES[0], 3, "separate"),
        (SCHEMES[1], 1, "in_place"),
        (SCHEMES[2], 2, "none"),
        (SCHEMES[3], 40, "in_place"),
        (SCHEMES[4], 1, "none"),
        (SCHEMES[5], 33, "separate"),
        (SCHEMES[6], 1, "none"),
    ],
    ids=str,
)
def test_matmul(runner: Runner, storage: Any, tokens: int, residual: str, schedule: str) -> None:
    matrix, codes, scales, values = weight(storage, 70, 96)
    rng = np.random.default_rng(tokens)
    x, addend, before = normal(rng, tokens, 100), normal(rng, tokens, 72), normal(rng, tokens, 80)
    describe: Any = getattr(matmul_tir, schedule)
    y = Rows(70, 80, 10)
    kernel = describe(runner.loops, matrix, Rows(96, 100, 4), y, residual, Rows(70, 72, 1), 1 / 3)
    given = {"x": x, "codes": codes, "scales": scales, "residual": addend, "y": before}
    got = runner.run(kernel, {**given, "tokens": tokens})["y"]
    added = {"none": None, "separate": addend[:, 1:71], "in_place": before[:, 10:]}[residual]
    halves = runner.loops.schedule.half and isinstance(storage, GroupScheme)
    most = HALF_TOLERANCE if halves else TOLERANCE
    assert error(got[:, 10:], matmul(x[:, 4:], values, added, 1 / 3)) < most
    assert np.array_equal(got[:, :10], before[:, :10])


# ---- caches and attention ----------------------------------------------------------------------


def as_stored(x: Array, dtype: Any) -> Array:
    return x if dtype == "f32" else x.astype(np.float16)


@pytest.mark.parametrize("dtype", ["f32", "f16"])
def test_cache_append(runner: Runner, dtype: Any) -> None:
    rng = np.random.default_rng(8)
    kv_heads, head_dim, past, tokens, capacity = 2, 12, 60, 9, 128
    old, new = normal(rng, kv_heads, past, head_dim), normal(rng, tokens, kv_heads * head_dim)
    new[0, :5] = [1e6, -1e-7, 6e-5, 0, -65519]  # beyond, below and at the edges of halves
    kernel = append_tir.cache_append(
        runner.loops, Caches(dtype, kv_heads, head_dim), Rows(24, 24), Rows(24, 24)
    )
    given = {
        "k": new,
        "v": new[::-1].copy(),
        "key": cache_words(old, capacity, dtype, is_key=True),
        "value": cache_words(old, capacity, dtype, is_key=False),
    }
    got = runner.run(kernel, {**given, "tokens": tokens, "past": past, "capacity": capacity})
    for name, rows, is_key in (("key", new, True), ("value", new[::-1], False)):
        added = rows.reshape(tokens, kv_heads, head_dim).swapaxes(0, 1)
        bounded = added if dtype == "f32" else np.clip(added, -65504, 65504)
        expected = np.concatenate([old, bounded], axis=1)
        assert np.array_equal(got[name], cache_words(expected, capacity, dtype, is_key))


@pytest.mark.parametrize(("dtype", "head_dim"), [("f32", 10), ("f16", 132)])
def test_append_of_what_is_rotated(runner: Runner, dtype: Any, head_dim: int) -> None:
    rng = np.random.default_rng(head_dim)
    heads, kv_heads, past, tokens, capacity = 3, 2, 60, 9, 128
    columns, width = heads * head_dim, kv_heads * head_dim
    q, table = normal(rng, tokens, columns + 2), normal(rng, tokens, head_dim)
    k, v = normal(rng, tokens, width + 4), normal(rng, tokens, width)
    old = normal(rng, kv_heads, past, head_dim)
    kernel = rotated_tir.rotate_and_append(
        runner.loops,
        Caches(dtype, kv_heads, head_dim),
        Rows(columns, columns + 2, 2),
        Rows(width, width + 4, 4),
        Rows(width, width),
    )
    given = {
        **{"q": q, "k": k, "v": v, "table": table},
        "key": cache_words(old, capacity, dtype, is_key=True, fill=np.nan),
        "value": cache_words(old, capacity, dtype, is_key=False, fill=np.nan),
    }
    got = runner.run(kernel, {**given, "tokens": tokens, "past": past, "capacity": capacity})
    assert error(got["q"][:, 2:], rope(q[:, 2:], table, head_dim)) < TOLERANCE
    assert np.array_equal(got["q"][:, :2], q[:, :2]) and np.array_equal(got["k"], k)
    for name, rows in (("key", rope(k[:, 4:], table, head_dim)), ("value", v)):
        added = rows.reshape(tokens, kv_heads, head_dim).swapaxes(0, 1)
        expected = np.concatenate([old, added], axis=1).astype(np.float32)
        words = cache_words(expected, capacity, dtype, name == "key", np.nan)
        stored = np.float32 if dtype == "f32" else np.float16
        found, wanted = (np.ascontiguousarray(w).view(stored) for w in (got[name], words))
        assert np.array_equal(np.isnan(found), np.isnan(wanted))
        # A half may be the next one where float32 lies between two.
        assert np.nanmax(np.abs(found - wanted)) < (4e-3 if dtype == "f16" else 4 * TOLERANCE)


@pytest.mark.parametrize("dtype", ["f32", "f16"])
def test_compress_keys(runner: Runner, dtype: Any) -> None:
    rng = np.random.default_rng(9)
    window, stride, capacity = 8, 4, 128
    keys = normal(rng, 2, 100, 12)
    kernel = compress_tir.compress_keys(runner.loops, Caches(dtype, 2, 12), window, stride)
    size = compress_tir.window_capacity(capacity, stride)
    # The windows of the first 70 tokens are there already, and must stay.
    expected = compress_keys(as_stored(keys, dtype), window, stride)
    first = window_count(70, window, stride)
    given = {
        "key": cache_words(keys, capacity, dtype, is_key=True),
        "compressed": cache_words(expected[:, :first] * 2, size, dtype, is_key=True),
    }
    got = runner.run(kernel, {**given, "tokens": 30, "past": 70, "capacity": capacity})
    raw = got["compressed"].swapaxes(2, 3)
    numbers = np.ascontiguousarray(raw).view(np.float32 if dtype == "f32" else np.float16)
    found = numbers.reshape(2, size, 12)[:, : expected.shape[1]]
    assert error(found[:, first:], expected[:, first:]) < (1e-3 if dtype == "f16" else TOLERANCE)
    assert error(found[:, :first], expected[:, :first] * 2) < 1e-3


CASES = [  # cache, kv heads, query heads of each, head_dim, past, tokens, splits
    ("f32", 2, 3, 64, 100, 5, 1),
    ("f16", 1, 16, 128, 300, 1, 4),
    ("f32", 2, 1, 10, 0, 70, 1),
]


def attend(runner: Runner, shape: Any, q: Array, caches: dict[str, Array], past: int) -> Array:
    tokens, heads, head_dim = q.shape
    rows = Rows(heads * head_dim, heads * head_dim)
    given: dict[str, Any] = {"blocks": np.zeros(1, np.int32), **caches, "q": q}
    given |= {"y": blank(*q.shape), "partials": blank(tokens, heads, shape.splits, shape.partial)}
    describe = sparse_tir.block_sparse_attention if shape.most else attention_tir.attend
    capacity = caches["value"].shape[1]
    kernel = describe(runner.loops, shape, rows, rows)
    got = runner.run(kernel, {**given, "tokens": tokens, "past": past, "capacity": capacity})
    if shape.splits > 1:
        given = {"partials": got["partials"], "y": blank(*q.shape), "tokens": tokens}
        got = runner.run(attention_tir.combine(runner.loops, shape, rows), given)
    return got["y"]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_attention(runner: Runner, case: Any) -> None:
    dtype, kv_heads, per_head, head_dim, past, tokens, splits = case
    rng = np.random.default_rng(past)
    length, capacity = past + tokens, 64 * (-(-(past + tokens) // 64) + 1)
    keys, values = normal(rng, kv_heads, length, head_dim), normal(rng, kv_heads, length, head_dim)
    q = normal(rng, tokens, kv_heads * per_head, head_dim) * 3
    layout = Caches(dtype, kv_heads, head_dim)
    shape = attention_tir.Shape(layout, kv_heads * per_head, head_dim**-0.5, splits)
    caches = {
        "key": cache_words(keys, capacity, dtype, is_key=True),
        "value": cache_words(values, capacity, dtype, is_key=False),
    }
    expected = attention(q, as_stored(keys, dtype), as_stored(values, dtype), past, head_dim**-0.5)
    assert error(attend(runner, shape, q, caches, past), expected) < TOLERANCE


@pytest.mark.parametrize(
    "case",
    [
        # decode, verify and prefill; cache, kv heads, heads of each, head_dim, block, past, tokens
        ("f16", 2, 16, 96, 64, 600, 1, 4),
        ("f32", 2, 2, 8, 16, 170, 5, 3),
        ("f32", 1, 4, 32, 16, 0, 90, 1),
    ],
    ids=str,
)
def test_block_sparse_attention(runner: Runner, case: Any) -> None:
    dtype, kv_heads, per_head, head_dim, size, past, tokens, splits = case
    rng = np.random.default_rng(past)
    length, capacity = past + tokens, 64 * (-(-(past + tokens) // 64) + 1)
    keys, values = normal(rng, kv_heads, length, head_dim), normal(rng, kv_heads, length, head_dim)
    q = normal(rng, tokens, kv_heads * per_head, head_dim) * 3
    most = 4
    rows = np.full((tokens, kv_heads, 1 + most), -1, np.int32)
    mask = np.zeros((kv_heads, tokens, -(-length // size)), bool)
    for t in range(tokens):
        last = (past + t) // size
        for h in range(kv_heads):
            if (t + h) % 3 == 2:  # all blocks
                mask[h, t, : last + 1] = True
                continue
            others = rng.choice(last + 1, min(most - 1, last + 1), replace=False)
            chosen = np.unique(np.append(others, last))
            rows[t, h, : 1 + chosen.size] = [chosen.size, *chosen]
            mask[h, t, chosen] = True
    layout = Caches(dtype, kv_heads, head_dim)
    heads, scale = kv_heads * per_head, head_dim**-0.5
    shape = attention_tir.Shape(layout, heads, scale, splits, most, size)
    caches = {
        "key": cache_words(keys, capacity, dtype, is_key=True),
        "value": cache_words(values, capacity, dtype, is_key=False),
        "blocks": rows,
    }
    stored = [as_stored(x, dtype) for x in (keys, values)]
    expected = block_sparse_attention(q, *stored, mask, past, scale, size)
    assert error(attend(runner, shape, q, caches, past), expected) < TOLERANCE


@pytest.mark.parametrize(
    ("dtype", "per_head", "head_dim", "past", "tokens", "sparse"),
    [
        ("f32", 3, 16, 300, 5, SparseConfig(8, 4, 1, 16, 48, 6, 302, "A", "exact")),
        ("f32", 3, 16, 0, 90, SparseConfig(8, 4, 1, 16, 16, 2, -1, "B", "exact")),
        ("f16", 16, 32, 3000, 1, SparseConfig(32, 16, 1, 64, 512, 8, -1, "B", "coarse")),
        ("f32", 2, 8, 50, 4, SparseConfig(8, 4, 0, 16, 16, 2, -1, "A", "coarse")),
    ],
    ids=str,
)
def test_select_blocks(
    runner: Runner,
    dtype: Any,
    per_head: int,
    head_dim: int,
    past: int,
    tokens: int,
    sparse: SparseConfig,
) -> None:
    rng = np.random.default_rng(past)
    kv_heads, heads, length = 2, 2 * per_head, past + tokens
    capacity = 64 * (-(-length // 64) + 1)
    layout = Caches(dtype, kv_heads, head_dim)
    stride = sparse.kernel_stride
    keys = normal(rng, kv_heads, length, head_dim)
    fine = as_stored(compress_keys(keys, sparse.kernel_size, stride), dtype)
    coarse = as_stored(compress_keys(keys, 4 * sparse.kernel_size, 4 * stride), dtype)
    sizes = [int(compress_tir.window_capacity(capacity, n * stride)) for n in (1, 4)]
    packed = cache_words(fine, sizes[0], dtype, is_key=True)
    basis = packed if sparse.lse == "exact" else cache_words(coarse, sizes[1], dtype, is_key=True)
    q = normal(rng, tokens, heads, head_dim) * 4
    selection = select_tir.Selection(layout, heads, head_dim**-0.5, sparse)
    rows = Rows(heads * head_dim, heads * head_dim)
    call = {"tokens": tokens, "past": past, "capacity": capacity}

    kernel = select_tir.normalizers(runner.loops, selection, rows)
    lse = runner.run(kernel, {"q": q, "basis": basis, "lse": blank(tokens, heads), **call})["lse"]
    kernel = select_tir.window_scores(runner.loops, selection, rows)
    given = {"q": q, "fine": packed, "lse": lse, "windows": blank(tokens, kv_heads, sizes[0])}
    windows = runner.run(kernel, {**given, **call})["windows"]
    width = 1 + selection.most
    kernel = select_tir.choose_blocks(
        runner.loops, selection, Rows(kv_heads * width, kv_heads * width)
    )
    blocks = int(select_tir.block_capacity(capacity, sparse.block_size))
    given = {
        "windows": windows,
        "keys": np.zeros((tokens, kv_heads, blocks), np.uint32),
        "y": np.zeros((tokens, kv_heads, width), np.int32),
    }
    got = runner.run(kernel, {**given, **call})["y"]

    expected = select_blocks(q, fine, coarse, past, head_dim**-0.5, sparse)
    mask = np.zeros_like(expected.mask)
    for t in range(tokens):
        for h in range(kv_heads):
            count = int(got[t, h, 0])
            assert (count < 0) == bool(expected.dense[t])
            if count < 0:
                mask[h, t, : (past + t) // sparse.block_size + 1] = True
                continue
            chosen = got[t, h, 1 : 1 + count]
            assert (np.diff(chosen) > 0).all() and (got[t, h, 1 + count :] == -1).all()
            mask[h, t, chosen] = True
    assert not expected.disagreements(mask, 1e-4).any()
