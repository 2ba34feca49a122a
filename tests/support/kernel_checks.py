"""Random calls of every kernel with what must come out: shared by all platforms' kernel tests."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from arkinfer.config import SparseConfig
from arkinfer.kernels.attention.reference import attend, causal, int8_queries
from arkinfer.kernels.cache_append import layout
from arkinfer.kernels.compress_keys.reference import compress_keys, window_count
from arkinfer.kernels.embed.reference import embed
from arkinfer.kernels.matmul.reference import (
    activation_group,
    gated_matmul,
    matmul,
    quantize_activations,
)
from arkinfer.kernels.rms_norm.reference import rms_norm
from arkinfer.kernels.rope.reference import rope
from arkinfer.kernels.rope_table.reference import rope_table
from arkinfer.kernels.select_blocks.reference import Selection, select_blocks
from arkinfer.kernels.swiglu.reference import swiglu
from tests.support import packing
from tests.support.kernel_runner import Call, Runner

Array = NDArray[Any]
Results = dict[str, Array]
FLOAT_TYPES = {"f32": np.float32, "f16": np.float16, "bf16": ml_dtypes.bfloat16}
CACHE_TYPES = {"f32": np.float32, "f16": np.float16}


@dataclass
class Check:
    """A call and the test of its results."""

    call: Call
    verify: Callable[[Results], None]


def run_checks(
    runner: Runner, checks: Iterable[Check], isas: Iterable[str], threads: Iterable[int] = (1, 2)
) -> None:
    """Run every check with every kernel set; all thread counts must give the same bits."""
    for check in checks:
        for isa in isas:
            results = runner.run([(check.call, isa, count) for count in threads])
            for other in results[1:]:
                for name, data in results[0].items():
                    assert data.tobytes() == other[name].tobytes(), f"{check.call.kernel} {isa}"
            try:
                check.verify(results[0])
            except AssertionError as error:
                place = f"{check.call.kernel} {isa} {check.call.attributes}"
                raise AssertionError(f"{place}: {error}") from error


def close(actual: Array, expected: Array, tolerance: Array | float) -> None:
    """Assert |actual - expected| <= tolerance everywhere."""
    error = np.abs(np.asarray(actual, np.float64) - expected)
    worst = np.unravel_index(np.argmax(error - tolerance), error.shape) if error.size else None
    assert error.size == 0 or bool((error <= tolerance).all()), (
        f"at {worst}: {actual[worst]} is not {expected[worst]} (tolerance {np.max(tolerance)})"
    )


# ---- weights ------------------------------------------------------------------------------


@dataclass
class Weight:
    """A random weight: its values, a bound of what kernels add up for it, and its operands.

    ``group`` counts the inputs that share an activation scale.
    """

    values: Array
    magnitude: Array
    group: int
    quantized: bool
    parts: list[tuple[str, Array, str, tuple[int, ...]] | None]

    def add_to(self, call: Call) -> None:
        for part in self.parts:
            if part is None:
                call.skip()
            else:
                name, data, dtype, shape = part
                call.add(name, data, dtype, shape)


def random_weight(
    rng: np.random.Generator, outputs: int, inputs: int, kind: str, group: int = 32
) -> Weight:
    """``kind`` is a float type, or bits, offset and scale type such as "u4 zero f16"."""
    shape = (outputs, inputs)
    if kind in FLOAT_TYPES:
        values = rng.standard_normal(shape).astype(FLOAT_TYPES[kind])
        exact = values.astype(np.float64)
        codes = ("codes", packing.panels(values), kind, shape)
        return Weight(exact, np.abs(exact), inputs, False, [codes, None, None])
    dtype, offset, scale_type = kind.split()
    most = {"u2": 3, "u4": 15, "i8": 255}[dtype]
    scale_dtype = CACHE_TYPES[scale_type]
    groups = (outputs, inputs // group)
    codes_array = rng.integers(0, most + 1, shape).astype(np.uint8)
    scales = (rng.uniform(0.5, 2.0, groups) / most).astype(scale_dtype)
    wide = np.repeat(scales.astype(np.float64), group, axis=1)
    offsets: Array | None = None
    if offset == "zero":
        zeros = rng.integers(0, most + 1, groups)
        values = wide * (codes_array - np.repeat(zeros, group, axis=1).astype(np.float64))
        offsets = zeros.astype(np.uint8) if dtype == "u4" else (zeros - 128).astype(np.int8)
    elif offset == "minimum":
        offsets = rng.standard_normal(groups).astype(scale_dtype)
        values = wide * codes_array + np.repeat(offsets.astype(np.float64), group, axis=1)
    else:
        middle = 1 if dtype == "u2" else (most + 1) // 2
        values = wide * (codes_array.astype(np.float64) - middle)
    magnitude = wide * most + np.abs(values)
    pack = {"u2": packing.codes2, "u4": packing.codes4, "i8": packing.codes8}[dtype]
    parts: list[tuple[str, Array, str, tuple[int, ...]] | None] = [
        ("codes", pack(codes_array), dtype, shape),
        ("scales", packing.panels(scales), scale_type, groups),
        None,
    ]
    if offsets is not None:
        offset_type = {"uint8": "u8", "int8": "i8"}.get(offsets.dtype.name, scale_type)
        parts[2] = ("offsets", packing.panels(offsets), offset_type, groups)
    together = activation_group(group) if dtype == "u2" else group
    return Weight(values, magnitude, together, True, parts)


WEIGHT_KINDS = list(FLOAT_TYPES) + [
    f"{dtype} {offset} {scale}"
    for dtype in ("u4", "i8")
    for offset in ("symmetric", "zero", "minimum")
    for scale in ("f16", "f32")
]
TERNARY_KINDS = ["u2 symmetric f16", "u2 symmetric f32"]


def check_rows_alone(
    runner: Runner, isa: str, kind: str, activations: int, inputs: int = 2304
) -> None:
    """A token has the same bits whether it was decoded alone or prefilled in a chunk."""
    rng = np.random.default_rng(3)
    weight = random_weight(rng, 70, inputs, kind, 128)
    x = rng.standard_normal((275, inputs)) * np.exp(rng.standard_normal((275, inputs)))
    x = x.astype(np.float32)  # with outliers, so that some groups have fine codes

    def call(rows: Array) -> Call:
        result = Call("matmul", len(rows), attributes={"activations": activations}).add("x", rows)
        weight.add_to(result)
        return result.skip().add("y", np.zeros((len(rows), 70), np.float32))

    together = runner.run([(call(x), isa, 2)])[0]["y"]
    for start, count in ((0, 1), (0, 2), (7, 3), (40, 11), (97, 30), (255, 2), (274, 1)):
        alone = runner.run([(call(x[start : start + count]), isa, 1)])[0]["y"]
        assert np.array_equal(alone, together[start : start + count]), (isa, kind, start, count)


def check_matmul(
    rng: np.random.Generator,
    weight: Weight,
    tokens: int,
    activations: int,
    residual: str = "none",
    scale: float = 1.0,
) -> Check:
    """``residual``: "none", "apart", or "in place" (the memory of y)."""
    outputs, inputs = weight.values.shape
    call = Call("matmul", tokens, attributes={"scale": scale, "activations": activations})
    wide = rng.standard_normal((tokens, inputs + 5)).astype(np.float32)
    wide *= np.exp(rng.standard_normal((tokens, inputs + 5))).astype(np.float32)
    x = wide[:, 3 : 3 + inputs]
    start = rng.standard_normal((tokens, outputs + 7)).astype(np.float32)
    other = rng.standard_normal((tokens, outputs)).astype(np.float32)
    call.buffers["wide"] = wide
    call.buffers["out"] = start
    call.view("wide", 3, inputs)
    weight.add_to(call)
    if residual == "apart":
        call.add("other", other)
    elif residual == "in place":
        call.view("out", 4, outputs)
    else:
        call.skip()
    call.view("out", 4, outputs)
    added = {"none": None, "apart": other, "in place": start[:, 4 : 4 + outputs]}[residual]
    quantized = weight.quantized and activations == 0
    used = quantize_activations(x, weight.group) if quantized else x
    expected = matmul(used, weight.values, added, scale)
    # Rounding of fp32 sums, relative to the sum of magnitudes: blocks of 128 and then the blocks.
    tolerance = 1e-6 * abs(scale) * (np.abs(used).astype(np.float64) @ weight.magnitude.T) + 1e-6

    def verify(results: Results) -> None:
        close(results["out"][:, 4 : 4 + outputs], expected, tolerance)
        untouched = np.ones(outputs + 7, bool)
        untouched[4 : 4 + outputs] = False
        assert np.array_equal(results["out"][:, untouched], start[:, untouched])

    return Check(call, verify)


def check_fused_matmul(
    rng: np.random.Generator, weight: Weight, tokens: int, activations: int
) -> Check:
    """A product that normalizes its input and gates its outputs."""
    outputs, inputs = weight.values.shape
    attributes = {"activations": activations, "epsilon": 1e-5, "gated": 1}
    call = Call("matmul", tokens, attributes=attributes)
    x = rng.standard_normal((tokens, inputs)).astype(np.float32)
    norm = (0.5 * rng.uniform(0.5, 1.5, inputs) / np.sqrt(inputs)).astype(np.float32)
    call.add("x", x)
    weight.add_to(call)
    call.skip().add("y", np.zeros((tokens, outputs // 2), np.float32)).add("norm", norm)
    normalized = rms_norm(x, norm, 1e-5).astype(np.float32)
    quantized = weight.quantized and activations == 0
    used = quantize_activations(normalized, weight.group) if quantized else normalized
    expected = gated_matmul(used, weight.values)
    tolerance = 2e-6 * (np.abs(used).astype(np.float64) @ weight.magnitude.T) + 1e-6
    if quantized:  # a value between two codes may take either
        tolerance += np.abs(normalized).max() / 127 * weight.magnitude.max()
    largest = np.abs(matmul(used, weight.values)) + tolerance
    gates, ups = np.split(largest, 2, axis=1)
    wrong_gate, wrong_up = np.split(tolerance, 2, axis=1)
    # The slope of silu is at most 1.1, and silu(g) at most |g|.
    bound = 1.1 * wrong_gate * ups + gates * wrong_up + 1e-6 * gates * ups

    def verify(results: Results) -> None:
        close(results["y"], expected, bound)

    return Check(call, verify)


def check_embed(rng: np.random.Generator, weight: Weight, tokens: int, scale: float) -> Check:
    vocabulary, hidden = weight.values.shape
    ids = rng.integers(0, vocabulary, (tokens, 1)).astype(np.int32)
    call = Call("embed", tokens, attributes={"scale": scale}).add("ids", ids)
    weight.add_to(call)
    call.add("y", np.zeros((tokens, hidden), np.float32))
    expected = embed(ids[:, 0], weight.values, scale)
    tolerance = 4e-7 * abs(scale) * embed(ids[:, 0], weight.magnitude) + 1e-7
    return Check(call, lambda results: close(results["y"], expected, tolerance))


# ---- elementwise --------------------------------------------------------------------------


def check_rms_norm(rng: np.random.Generator, tokens: int, hidden: int) -> Check:
    x = (rng.standard_normal((tokens, hidden)) * 3).astype(np.float32)
    weight = rng.standard_normal(hidden).astype(np.float32)
    call = Call("rms_norm", tokens, attributes={"epsilon": 1e-5}).add("x", x).add("weight", weight)
    call.add("y", np.zeros_like(x))
    expected = rms_norm(x, weight, 1e-5)
    return Check(
        call, lambda results: close(results["y"], expected, 2e-6 * np.abs(expected) + 1e-7)
    )


def check_swiglu(rng: np.random.Generator, tokens: int, columns: int) -> Check:
    both = (rng.standard_normal((tokens, 2 * columns)) * 20).astype(np.float32)
    both[0, 0] = 3000.0
    both[-1, columns - 1] = -3000.0
    call = Call("swiglu", tokens, buffers={"both": both})
    call.view("both", 0, columns).view("both", columns, columns)
    call.add("y", np.zeros((tokens, columns), np.float32))
    expected = swiglu(both[:, :columns], both[:, columns:])
    # exp(-gate) is clamped at e^88: what is smaller than that times up vanishes.
    return Check(
        call, lambda results: close(results["y"], expected, 1e-6 * np.abs(expected) + 1e-30)
    )


def check_rope_table(
    rng: np.random.Generator,
    tokens: int,
    head_dim: int,
    past: int,
    total: int,
    original_max: int,
    parents: Sequence[int] | None = None,
) -> Check:
    short = (10000.0 ** -(np.arange(head_dim // 2) * 2 / head_dim)).astype(np.float32)
    long = (short / rng.uniform(1, 30, head_dim // 2)).astype(np.float32)
    attributes = {"original_max": original_max, "attention_factor": 1.25}
    call = Call("rope_table", tokens, past, total, attributes).add("short", short)
    call.add("long", long).add("y", np.zeros((tokens, head_dim), np.float32))
    if parents is not None:
        call.tree(parents)
    depths = None if call.depths is None else call.depths.tolist()
    expected = rope_table(past, tokens, total, short, long, original_max, 1.25, depths)
    return Check(call, lambda results: close(results["y"], expected, 3e-7))


def check_rope(rng: np.random.Generator, tokens: int, heads: int, head_dim: int) -> Check:
    buffer = rng.standard_normal((tokens, heads * head_dim + 3)).astype(np.float32)
    table = rng.uniform(-1, 1, (tokens, head_dim)).astype(np.float32)
    call = Call("rope", tokens, attributes={"head_dim": head_dim}, buffers={"x": buffer})
    call.view("x", 2, heads * head_dim).add("table", table)
    expected = buffer.astype(np.float64)
    inside = slice(2, 2 + heads * head_dim)
    expected[:, inside] = rope(buffer[:, inside], table, head_dim)
    return Check(call, lambda results: close(results["x"], expected, 1e-6))


# ---- caches -------------------------------------------------------------------------------


def check_cache_append(
    rng: np.random.Generator,
    tokens: int,
    past: int,
    kv_heads: int,
    head_dim: int,
    dtype: layout.CacheType,
) -> Check:
    blocks = -(-(past + tokens) // 64)
    whole = rng.standard_normal((2, kv_heads, past + tokens, head_dim)).astype(np.float32)
    new = rng.standard_normal((2, tokens, kv_heads * head_dim)).astype(np.float32)
    # Halves that round to even, overflow and underflow; a token of equal numbers.
    new[:, 0, 0] = (1.0 + 2.0**-11, 70000.0)
    new[:, -1, -1] = (3e-8, -1e-9)
    if tokens > 2:
        new[:, tokens // 2] = ((0.0,), (2.5,))
    call = Call("cache_append", tokens, past)
    call.add("k", new[0]).add("v", new[1])
    keys, values = layout.pack_keys, layout.pack_values
    old_keys, old_values = whole[:, :, :past]
    call.add("key", keys(old_keys, blocks, dtype, 7), dtype, (kv_heads, blocks, head_dim, 64))
    shape = (kv_heads, blocks * 64, head_dim)
    call.add("value", values(old_values, blocks, dtype, 7), dtype, shape)
    whole[:, :, past:] = new.reshape(2, tokens, kv_heads, head_dim).transpose(0, 2, 1, 3)
    with np.errstate(over="ignore"):
        expected = {
            "key": keys(whole[0], blocks, dtype, 7),
            "value": values(whole[1], blocks, dtype, 7),
        }

    def verify(results: Results) -> None:
        for name, cache in expected.items():
            assert results[name].tobytes() == cache.tobytes(), f"{name} differs"

    return Check(call, verify)


def compression_call(
    keys: Array,
    past: int,
    dtype: layout.CacheType,
    compressed: layout.CacheType,
    window: int = 32,
    stride: int = 16,
) -> Call:
    """A call of compress_keys for the tokens of keys [kv_heads, tokens, head_dim] after past.

    The compressed cache is all bytes of 9 (fp16 and fp32: numbers).
    """
    kv_heads, length, head_dim = keys.shape
    blocks = -(-length // 64)
    out_blocks = -(-max(1, window_count(length, window, stride)) // 64)
    call = Call("compress_keys", length - past, past)
    call.attributes = {"window": window, "stride": stride}
    call.add("key", layout.pack_keys(keys, blocks, dtype), dtype, (kv_heads, blocks, head_dim, 64))
    out = layout.pack_keys(keys[:, :0], out_blocks, compressed, 9)
    return call.add("out", out, compressed, (kv_heads, out_blocks, head_dim, 64))


def check_compress_keys(
    rng: np.random.Generator,
    tokens: int,
    past: int,
    kv_heads: int,
    head_dim: int,
    dtype: layout.CacheType,
    window: int = 32,
    stride: int = 16,
    compressed: layout.CacheType | None = None,
) -> Check:
    """``compressed``: by default what goes with a cache of ``dtype``."""
    kind: layout.CacheType = compressed or ("i8" if dtype == "u4" else dtype)
    keys = rng.standard_normal((kv_heads, past + tokens, head_dim)).astype(np.float32)
    expected = compress_keys(layout.stored(keys, dtype), window, stride)
    before = window_count(past, window, stride)
    call = compression_call(keys, past, dtype, kind, window, stride)
    count = expected.shape[1]
    # Half a unit in the last place of the stored type, and the rounding of the sum.
    step = {"f16": 2.0**-11, "f32": 1e-6, "i8": 0.0}[kind] * np.abs(expected)
    if kind == "i8":
        step = step + np.abs(expected).max(axis=2, initial=0)[..., None] / 254
    tolerance = (1.01 * step + 1e-6)[:, before:]

    def verify(results: Results) -> None:
        out, start = results["out"], call.buffers["out"]
        ours = layout.unpack_keys(out, count, head_dim, kind)
        close(ours[:, before:], expected[:, before:], tolerance)
        capacity = call.operands[1].shape[1] * 64 if call.operands[1] else 0
        with np.errstate(over="ignore"):
            was, now = (layout.unpack_keys(c, capacity, head_dim, kind) for c in (start, out))
        assert np.array_equal(was[:, :before], now[:, :before])
        assert np.array_equal(was[:, count:], now[:, count:])

    return Check(call, verify)


# ---- attention ----------------------------------------------------------------------------


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


# ---- selection ----------------------------------------------------------------------------


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


def small_checks(seed: int, heavy: bool = True) -> list[Check]:
    """A few calls of every kernel at odd sizes, for platforms where each call is slow."""
    rng = np.random.default_rng(seed)
    checks: list[Check] = []
    for kind in WEIGHT_KINDS + TERNARY_KINDS:
        quantized = " " in kind
        for tokens, activations in ((1, 0), (1, 1), (3, 0), (19, 1)):
            group = int(rng.choice([16, 32, 64, 128])) if quantized else 0
            inputs = 256 if quantized else int(rng.integers(1, 200))
            weight = random_weight(rng, int(rng.integers(1, 60)), inputs, kind, group)
            residual = ("none", "apart", "in place")[int(rng.integers(3))]
            checks.append(check_matmul(rng, weight, tokens, activations, residual, 0.7))
        weight = random_weight(rng, 32, 128, kind, 32)
        checks += [check_fused_matmul(rng, weight, tokens, 0) for tokens in (1, 3, 18)]
        weight = random_weight(rng, 37, 128, kind, 32)
        checks.append(check_embed(rng, weight, 3, 12.0))
    if heavy:
        weight = random_weight(rng, 150, 4352, "u4 zero f16", 128)
        checks.append(check_matmul(rng, weight, 140, 0))
    checks += [check_rms_norm(rng, 2, n) for n in (1, 16, 37, 576)]
    checks += [check_swiglu(rng, 2, n) for n in (1, 48, 4099)]
    checks.append(check_rope_table(rng, 3, 64, 100, 103, 0))
    checks.append(check_rope_table(rng, 3, 128, 131000, 131072, 65536))
    checks.append(check_rope_table(rng, 4, 16, 9000, 9004, 0, (-1, 0, 0, -1)))
    checks += [check_rope(rng, 2, 3, d) for d in (2, 26, 128)]
    for cache_type in layout.CACHE_TYPES:
        checks.append(check_cache_append(rng, 70, 61, 2, 40, cache_type))
        checks.append(check_cache_append(rng, 1, 64, 3, 64, cache_type))
        checks.append(check_compress_keys(rng, 90, 100, 2, 24, cache_type))
        checks.append(check_compress_keys(rng, 90, 200, 1, 24, cache_type, 128, 64))
    for cache_type in layout.CACHE_TYPES:
        checks.append(check_attention(rng, 1, 700, 2, 16, 128, cache_type))
        checks.append(check_attention(rng, 5, 130, 2, 3, 64, cache_type))
        checks.append(check_attention(rng, 66, 20, 1, 1, 20, cache_type))
        checks.append(check_block_sparse(rng, 1, 1000, 2, 16, 128, cache_type))
        checks.append(check_block_sparse(rng, 4, 600, 2, 2, 36, cache_type))
        checks.append(check_block_sparse(rng, 3, 40, 1, 1, 1, cache_type, 4, 4))
        tree = (-1, 0, 0, 1, -1, 4)
        checks.append(check_attention(rng, 6, 125, 2, 2, 32, cache_type, tree))
        checks.append(check_block_sparse(rng, 6, 125, 2, 2, 32, cache_type, 16, 5, tree))
    for dtype in CACHE_TYPES:
        for generation, lse in (("A", "exact"), ("B", "coarse")):
            sparse = SparseConfig(
                window_size=128, topk=4, dense_len=-1, generation=generation, lse=lse
            )
            keys = rng.standard_normal((2, 1300, 64)).astype(CACHE_TYPES[dtype])
            q = rng.standard_normal((3, 8, 64)).astype(np.float32) * 2
            checks.append(check_selection(q, keys, 1297, sparse))
            if dtype == "f32":
                checks.append(check_selection(q, keys, 1297, sparse, dtype="i8"))
                checks.append(check_selection(q, keys, 1297, sparse, parents=(-1, -1, 0)))
    return checks
