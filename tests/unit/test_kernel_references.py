"""The numpy references against onnxruntime's standard operators, or against their definition."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper

from arkinfer.kernels.attention.reference import attention
from arkinfer.kernels.block_sparse_attention.reference import block_sparse_attention
from arkinfer.kernels.cache_append import layout
from arkinfer.kernels.cache_append.reference import cache_append
from arkinfer.kernels.compress_keys.reference import compress_keys, window_count
from arkinfer.kernels.embed.reference import embed
from arkinfer.kernels.matmul.reference import matmul, quantize_activations
from arkinfer.kernels.rms_norm.reference import rms_norm
from arkinfer.kernels.rope.reference import rope
from arkinfer.kernels.rope_table.reference import rope_table
from arkinfer.kernels.swiglu.reference import swiglu

RNG = np.random.default_rng(11)


def normal(*shape: int) -> NDArray[np.float32]:
    return RNG.standard_normal(shape).astype(np.float32)


def standard(op: str, inputs: dict[str, Any], outputs: int = 1, **attributes: Any) -> Any:
    """The first output of one standard operator; an input of None is left out."""
    given = {name: array for name, array in inputs.items() if array is not None}
    names = [name if array is not None else "" for name, array in inputs.items()]
    results = [f"result{index}" for index in range(outputs)]
    graph = helper.make_graph(
        [helper.make_node(op, names, results, **attributes)],
        "one",
        [
            helper.make_tensor_value_info(
                name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape
            )
            for name, array in given.items()
        ],
        [onnx.ValueInfoProto(name="result0")],
    )
    graph.output[0].type.tensor_type.elem_type = TensorProto.FLOAT
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 24)], ir_version=12)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return session.run(None, given)[0]


def test_rms_norm() -> None:
    x, weight = normal(3, 5, 32), normal(32)
    expected = standard("RMSNormalization", {"x": x, "w": weight}, epsilon=1e-2)
    assert np.abs(rms_norm(x, weight, 1e-2) - expected).max() < 2e-6


def test_swiglu() -> None:
    gate, up = normal(4, 9) * 30, normal(4, 9)
    expected = standard("Swish", {"x": gate}) * up
    assert np.abs(swiglu(gate, up) - expected).max() < 1e-4
    extremes = np.array([[-1e4, 1e4, 0.0]])
    assert swiglu(extremes, np.ones((1, 3))).tolist() == [[0.0, 1e4, 0.0]]


def test_rope() -> None:
    x, table = normal(6, 3 * 8), normal(6, 8)
    expected = standard(
        "RotaryEmbedding",
        {"x": x[None], "cos": table[None, :, :4], "sin": table[None, :, 4:]},
        num_heads=3,
    )
    assert np.abs(rope(x, table, 8) - expected[0]).max() < 1e-6


def test_rope_table() -> None:
    # The last frequency of MiniCPM4-8B: 10000**(-126/128) / 31.02392307921529.
    short = np.array([10000.0 ** (-126 / 128) / 31.02392307921529], np.float32)
    table = rope_table(1000, 1, 1001, short, 2 * short)
    assert table == pytest.approx(np.array([[np.cos(0.0037222), np.sin(0.0037222)]]), abs=1e-7)
    assert np.array_equal(
        rope_table(0, 65, 64, short, 2 * short, 64, 1.5)[:, 1:],
        1.5 * rope_table(0, 65, 64, short, short)[:, 1:],
    )
    assert np.array_equal(
        rope_table(3, 2, 65, short, 2 * short, 64), rope_table(3, 2, 5, 2 * short, short)
    )


@pytest.mark.parametrize("past", [0, 1, 7])
@pytest.mark.parametrize("tokens", [1, 4])
def test_attention(past: int, tokens: int) -> None:
    q, k, v = normal(tokens, 6, 8), normal(2, past + tokens, 8), normal(2, past + tokens, 8)

    def rows(array: NDArray[Any]) -> NDArray[Any]:
        return array[:, past:].transpose(1, 0, 2).reshape(1, tokens, -1)

    expected = standard(
        "Attention",
        {
            "q": q.reshape(1, tokens, -1),
            "k": rows(k),
            "v": rows(v),
            "mask": None,
            "pk": k[None, :, :past],
            "pv": v[None, :, :past],
        },
        outputs=3,
        q_num_heads=6,
        kv_num_heads=2,
        is_causal=1,
        scale=0.3,
    )
    found = attention(q, k, v, past, 0.3)
    assert np.abs(found.reshape(tokens, -1) - expected[0]).max() < 1e-6
    every = np.ones((2, tokens, -(-(past + tokens) // 4)), bool)
    sparse = block_sparse_attention(q, k, v, every, past, 0.3, 4)
    assert np.abs(sparse - found).max() < 1e-12


def test_block_sparse_attention_sees_its_blocks_alone() -> None:
    q, k, v = normal(1, 2, 4), normal(1, 12, 4), normal(1, 12, 4)
    mask = np.array([[[True, False, True]]])
    kept = [0, 1, 2, 3, 8, 9, 10, 11]
    found = block_sparse_attention(q, k, v, mask, 11, 0.5, 4)
    expected = attention(q, k[:, kept], v[:, kept], 7, 0.5)
    assert np.abs(found - expected).max() < 1e-12


def test_matmul_and_embed() -> None:
    x, weight, residual = normal(3, 8), normal(5, 8), normal(3, 5)
    expected = standard("Gemm", {"x": x, "w": weight, "r": residual}, transB=1, alpha=0.25)
    assert np.abs(matmul(x, weight, residual, 0.25) - expected).max() < 1e-6
    assert embed(np.array([4, 0]), weight, 12.0) == pytest.approx(12.0 * weight[[4, 0]])


def test_int8_activations() -> None:
    x = normal(4, 64)
    x[2, 32:] = 0.0
    rounded = quantize_activations(x, 32)
    scales = np.abs(x.reshape(4, 2, 32)).max(axis=-1, keepdims=True) / 127
    codes = np.divide(rounded.reshape(4, 2, 32), scales, where=scales > 0, out=np.zeros((4, 2, 32)))
    assert np.abs(codes - np.rint(codes)).max() < 1e-4 and np.abs(codes).max() <= 127.001
    assert (np.abs(rounded.reshape(4, 2, 32) - x.reshape(4, 2, 32)) <= 0.5001 * scales).all()
    assert not rounded[2, 32:].any()


def test_cache_append_rounds_and_keeps_the_rest() -> None:
    cache, new = normal(2, 9, 4).astype(np.float16), normal(3, 8)
    found = cache_append(cache, new, 5)
    assert found.dtype == np.float16
    assert np.array_equal(found[:, :5], cache[:, :5]) and np.array_equal(found[:, 8:], cache[:, 8:])
    assert np.array_equal(found[1, 6], new[1, 4:].astype(np.float16))


@pytest.mark.parametrize("dtype", layout.CACHE_TYPES)
@pytest.mark.parametrize("head_dim", [1, 6, 32, 80])
def test_cache_layouts_hold_what_was_stored(dtype: layout.CacheType, head_dim: int) -> None:
    x = normal(2, 100, head_dim) * 3
    x[0, 5] = 0
    x[1, 7] = 1.5
    expected = layout.stored(x, dtype)
    keys = layout.pack_keys(x, 3, dtype, 3)
    values = layout.pack_values(x, 3, dtype, 3)
    assert np.array_equal(layout.unpack_keys(keys, 100, head_dim, dtype), expected)
    assert np.array_equal(layout.unpack_values(values, 100, head_dim, dtype), expected)
    top = np.abs(x).max(axis=-1, keepdims=True)
    error = {"f32": 0, "f16": 2**-11, "i8": 0.501 / 127, "u4": 1.01 / 15 + 2**-10}[dtype]
    assert (np.abs(expected - x) <= error * top).all()
    assert np.array_equal(expected[0, 5], np.zeros(head_dim))
    if dtype != "i8":
        assert (expected[1, 7] == 1.5).all()
    zeros = np.zeros((2, 9, head_dim), np.float32)
    found = cache_append(zeros, x[:, :3].swapaxes(0, 1).reshape(3, -1), 4, dtype)
    assert np.array_equal(found[:, 4:7], expected[:, :3].astype(np.float32))


def test_layouts_of_quantized_caches_by_hand() -> None:
    """Where docs/bundle.md puts token 37 of dimension 5, of 6 dimensions."""
    x = np.zeros((1, 64, 6), np.float32)
    x[0, 37] = (0, 0, 0, 0, -0.5, 2)
    key, value = (pack(x, 1, "i8")[0, 0] for pack in (layout.pack_keys, layout.pack_values))
    assert key.size == 64 * 8 + 256 and key[1 * 256 + 37 * 4 + 1] == 127
    assert key[512:].view(np.float32)[37] == np.float32(2) / np.float32(127)
    assert value.size == 64 * 16 + 256 and value[9 * 64 + 5 * 4 + 1] == 127
    assert value[1024:].view(np.float32)[37] == np.float32(2) / np.float32(127)
    key, value = (pack(x, 1, "u4")[0, 0] for pack in (layout.pack_keys, layout.pack_values))
    assert key.size == value.size == 64 * 16 + 256
    # (2 + 0.5) / 15 is the step, and 0 is 3 steps above the minimum.
    assert key[5 * 32 + 5] == 15 << 4 and key[4 * 32 + 5] == 0 and key[0 * 32 + 5] == 3 << 4
    assert value[37 * 16 + 5] == 15 and value[37 * 16 + 4] == 0 and value[37 * 16] == 3
    for cache in (key, value):
        scales, minimums = cache[1024:].view(np.float16).reshape(2, 64)
        assert scales[37] == np.float16(2.5 / 15) and minimums[37] == -0.5
        assert scales[36] == minimums[36] == 0


def test_compression_at_every_length() -> None:
    keys = normal(1, 1000, 2)
    whole = compress_keys(keys, 32, 16)
    for length in range(1001):
        count = window_count(length, 32, 16)
        assert count == sum(16 * j + 32 <= length for j in range(100))
        if count != window_count(length - 1, 32, 16):
            assert np.array_equal(compress_keys(keys[:, :length], 32, 16), whole[:, :count])
    assert whole[0, 3] == pytest.approx(keys[0, 48:80].mean(axis=0), abs=1e-6)
