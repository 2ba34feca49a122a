"""Round-to-nearest, the policy, and weights made of several tensors."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from arkinfer import converters
from arkinfer.errors import InvalidOptionError, UnsupportedQuantizationError
from arkinfer.quantize import materialize, policy, rtn
from arkinfer.quantize.schemes import GroupScheme, QuantizedTensor
from tests.support.tiny_gguf import QTypes, write_tiny_gguf
from tests.support.tiny_models import write_tiny_hf

ASKED = [scheme for scheme in map(policy.parse, policy.QUANT_CHOICES[2:])]
SCHEMES = [scheme for scheme in ASKED if isinstance(scheme, GroupScheme) and scheme.bits != 2]


@dataclass(frozen=True)
class Spec:
    """The fields of a graph's WeightSpec, which needs the compile extra."""

    name: str
    sources: tuple[str, ...]
    shape: tuple[int, ...]
    storage: Any


def by_loops(values: NDArray[np.float32], scheme: GroupScheme) -> NDArray[np.float64]:
    """The values that RTN should represent, one group at a time in Python floats."""
    result = np.zeros(values.shape)
    middle, top = 1 << (scheme.bits - 1), (1 << scheme.bits) - 1
    for row in range(values.shape[0]):
        for start in range(0, values.shape[1], scheme.group_size):
            group = [float(v) for v in values[row, start : start + scheme.group_size]]
            if scheme.offset == "symmetric":
                zero = middle
                scale = float(np.float16(max(group, key=abs) / -middle))
            else:
                low, high = min(0.0, *group), max(0.0, *group)
                scale = float(np.float16((high - low) / top))
                zero = min(top, max(0, round(-low / scale))) if scale else 0
            for index, value in enumerate(group):
                code = round(value / scale) + zero if scale else zero
                result[row, start + index] = scale * (min(top, max(0, code)) - zero)
    return result


@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
def test_rtn_follows_its_definition(scheme: GroupScheme) -> None:
    rng = np.random.default_rng(7)
    values = rng.standard_normal((6, 256), dtype=np.float32) * np.float32(0.05)
    values[1] = np.abs(values[1])
    values[2] = -np.abs(values[2])
    values[3] = 0
    values[4, :200] = 0
    ours = rtn.quantize(values, scheme).dequantize()
    scale = np.abs(values).max() / (1 << (scheme.bits - 1))
    wrong = ~np.isclose(ours, by_loops(values, scheme), rtol=1e-6, atol=1e-9)
    # float32 and float64 may round a value halfway between two codes differently.
    assert wrong.sum() <= 2
    assert np.abs(ours - by_loops(values, scheme)).max() <= 1.01 * scale


@settings(deadline=None)
@given(
    scheme=st.sampled_from(SCHEMES),
    seed=st.integers(0, 1 << 32),
    power=st.integers(-12, 12),
    shift=st.floats(-3, 3),
)
def test_rtn_error_is_bounded(scheme: GroupScheme, seed: int, power: int, shift: float) -> None:
    rng = np.random.default_rng(seed)
    values = ((rng.standard_normal((3, 256)) + shift) * 2.0**power).astype(np.float32)
    tensor = rtn.quantize(values, scheme)
    error = np.abs(tensor.dequantize() - values).reshape(3, -1, scheme.group_size)
    grouped = np.abs(values).reshape(error.shape)
    scale = np.abs(tensor.scales)
    steps = 1.0 if scheme.offset == "symmetric" else 0.5
    # A scale rounded to fp16 reaches the far end of its group short by up to 2^-11 of it,
    # and tiny scales are subnormal, with steps of 2^-24.
    ends = 2.0**-11 * grouped.max(axis=2) * 2 + (1 << scheme.bits) * 2.0**-25
    assert np.all(error.max(axis=2) <= steps * scale + ends)


TERNARY = [GroupScheme(2, 64), GroupScheme(2, 256), GroupScheme(2, 512, "symmetric", "fp32")]


@pytest.mark.parametrize("scheme", TERNARY, ids=str)
def test_ternary_follows_its_definition(scheme: GroupScheme) -> None:
    values = np.random.default_rng(8).standard_normal((5, 512), dtype=np.float32)
    values[1, 100:] *= np.float32(30)
    values[2] = np.abs(values[2])
    tensor = rtn.quantize(values, scheme)
    kind = np.float16 if scheme.scale_dtype == "fp16" else np.float32
    for row in range(5):
        for start in range(0, 512, scheme.group_size):
            group = [float(v) for v in values[row, start : start + scheme.group_size]]
            scale = float(kind(sum(map(abs, group)) / len(group)))
            wanted = [max(-1, min(1, round(v / scale))) * scale for v in group]
            found = tensor.dequantize()[row, start : start + scheme.group_size]
            np.testing.assert_allclose(found, wanted, 1e-6)


@settings(deadline=None)
@given(
    scheme=st.sampled_from(TERNARY),
    seed=st.integers(0, 1 << 32),
    dtype=st.sampled_from([ml_dtypes.bfloat16, np.float16]),
    spread=st.booleans(),
)
def test_ternary_values_are_kept(scheme: GroupScheme, seed: int, dtype: Any, spread: bool) -> None:
    """Also where a finer group would do, as when per-row weights are asked for per group."""
    rng = np.random.default_rng(seed)
    group = scheme.group_size if spread else 512
    scales = rng.uniform(0.001, 0.1, (7, 512 // group)).astype(dtype).astype(np.float32)
    signs = rng.integers(-1, 2, (7, 512)).astype(np.float32)
    signs[0] = 0
    signs[1] = 1
    values = signs * np.repeat(scales, group, axis=1)
    tensor = rtn.quantize(values, scheme)
    np.testing.assert_array_equal(tensor.dequantize(), values)
    np.testing.assert_array_equal(tensor.codes, signs + 1)


def test_ternary_scales_too_small_for_fp16_keep_their_codes() -> None:
    values = np.full((1, 64), 2.0**-30, np.float32)
    assert (rtn.quantize(values, GroupScheme(2, 64)).codes == 2).all()
    exact = rtn.quantize(values, GroupScheme(2, 64, "symmetric", "fp32"))
    np.testing.assert_array_equal(exact.dequantize(), values)


def test_zero_stays_zero() -> None:
    values = np.linspace(0.5, 9, 64, dtype=np.float32)[None]
    values[0, 3] = 0
    for scheme in SCHEMES:
        if 64 % scheme.group_size == 0:
            assert rtn.quantize(values, scheme).dequantize()[0, 3] == 0


def test_rounding_the_result_again_changes_nothing() -> None:
    values = np.random.default_rng(1).standard_normal((4, 128), dtype=np.float32)
    for scheme in SCHEMES:
        if scheme.offset == "symmetric":
            once = rtn.quantize(values, scheme)
            twice = rtn.quantize(once.dequantize(), scheme)
            np.testing.assert_array_equal(once.codes, twice.codes)
            np.testing.assert_array_equal(once.scales, twice.scales)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 3e38])
def test_unusable_values_are_refused(bad: float) -> None:
    values = np.ones((2, 32), np.float32)
    values[1, 4] = bad
    for offset in ("symmetric", "zero_point"):
        with pytest.raises(UnsupportedQuantizationError):
            rtn.quantize(values, GroupScheme(4, 32, offset))
    with pytest.raises(UnsupportedQuantizationError):
        rtn.quantize(values, GroupScheme(2, 32))


def test_groups_must_divide_rows() -> None:
    with pytest.raises(UnsupportedQuantizationError, match="96.*multiple of 64"):
        rtn.quantize(np.zeros((1, 96), np.float32), GroupScheme(4, 64))


def test_policy_table() -> None:
    w4, w8 = GroupScheme(4, 128), GroupScheme(8, 128)
    stored = GroupScheme(4, 32, "minimum")
    assert policy.choose("w4g128", "embedding", "bf16") == "bf16"
    assert policy.choose("w4g128", "norm", "bf16") == "f32"
    assert policy.choose("w4g128", "head", "bf16") == w8
    assert policy.choose("w4g128", "projection", "bf16") == w4
    assert policy.choose("w4g128", "projection", stored) == w4
    assert policy.choose("w4g128", "head", stored) == stored
    assert policy.choose("w8g64z", "projection", "f16") == GroupScheme(8, 64, "zero_point")
    for quant in ("none", "keep"):
        assert policy.choose(quant, "projection", "f16") == "f16"
        assert policy.choose(quant, "projection", stored) == stored
        assert policy.choose(quant, "norm", "f16") == "f32"


def test_policy_of_ternary() -> None:
    stored = GroupScheme(2, 256)
    row = GroupScheme(2, 512, "symmetric", "fp32")
    assert policy.choose("ternary", "projection", "bf16", 512) == row
    assert policy.choose("ternary", "projection", stored, 512) == row
    assert policy.choose("ternary", "projection", "bf16", 100) == "bf16"
    assert policy.choose("ternaryg64", "projection", "bf16", 512) == GroupScheme(2, 64)
    assert policy.choose("ternaryg128", "projection", "bf16", 576) == GroupScheme(2, 64)
    assert policy.choose("ternary", "head", "bf16", 512) == GroupScheme(8, 128)
    assert policy.choose("ternaryg64", "head", "bf16", 512) == GroupScheme(8, 64)
    assert policy.choose("ternary", "embedding", "bf16", 512) == "bf16"
    assert policy.choose("ternary", "norm", "bf16", 512) == "f32"
    assert policy.choose("keep", "projection", stored, 512) == stored


def test_policy_fits_groups_to_rows() -> None:
    # SmolLM2's hidden size of 576 is nine groups of 64.
    assert policy.choose("w4g128", "projection", "bf16", 576) == GroupScheme(4, 64)
    assert policy.choose("w4g32", "projection", "bf16", 576) == GroupScheme(4, 32)
    assert policy.choose("w4g128", "projection", "bf16", 100) == "bf16"


def test_unknown_quantization_lists_the_known() -> None:
    with pytest.raises(InvalidOptionError, match=r"w3g128.*none, keep, w4g32"):
        policy.parse("w3g128")
    assert len(policy.QUANT_CHOICES) == 18


def test_keep_needs_quantized_tensors() -> None:
    with pytest.raises(UnsupportedQuantizationError, match="keep"):
        policy.check("keep", ["f32", "bf16"])
    policy.check("keep", ["f32", GroupScheme(8, 32)])
    policy.check("w4g128", ["f32"])


def _qkv(layer: int) -> tuple[str, ...]:
    return tuple(f"model.layers.{layer}.self_attn.{part}_proj.weight" for part in "qkv")


@pytest.mark.parametrize("storage", ["f32", "f16", "bf16", GroupScheme(4, 32, "zero_point")])
def test_rows_of_a_merged_weight(tmp_path: Path, storage: Any) -> None:
    checkpoint = converters.open(write_tiny_hf(tmp_path, "minicpm4-8b", dtype="bf16"))
    spec = Spec("qkv", _qkv(1), (288, 256), storage)
    joined = np.concatenate([checkpoint.read(name) for name in spec.sources])
    whole = materialize.rows(spec, checkpoint)
    if isinstance(storage, GroupScheme):
        assert isinstance(whole, QuantizedTensor)
        expected = rtn.quantize(joined, storage).dequantize()
    else:
        dtype = {"f32": np.float32, "f16": np.float16, "bf16": ml_dtypes.bfloat16}[storage]
        assert whole.dtype == dtype
        expected = joined.astype(dtype).astype(np.float32)
    for rows in (slice(None), slice(250, 260), slice(255, 288), slice(0, 256), slice(7, 7)):
        part = materialize.rows(spec, checkpoint, rows)
        values = part.dequantize() if isinstance(part, QuantizedTensor) else part
        np.testing.assert_array_equal(np.asarray(values, np.float32), expected[rows])


def test_stored_bits_are_kept(tmp_path: Path) -> None:
    path = write_tiny_gguf(tmp_path / "m.gguf", "llama", qtype=QTypes.Q4_1)
    checkpoint = converters.open(path)
    scheme = GroupScheme(4, 32, "minimum")
    spec = Spec("qkv", _qkv(0), (256, 128), scheme)
    part = materialize.rows(spec, checkpoint, slice(120, 200))
    assert isinstance(part, QuantizedTensor)
    assert part.offsets is not None
    assert part.scheme == scheme
    expected = np.concatenate([checkpoint.read(name) for name in spec.sources])[120:200]
    np.testing.assert_array_equal(part.dequantize(), expected)
