"""Every storage that a weight can have goes into weights.bin and comes back bit for bit."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import ml_dtypes
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from arkinfer.backends.cpu import weights
from arkinfer.bundle_writer import BundleWriter
from arkinfer.checkpoint import Checkpoint, FloatType, TensorInfo
from arkinfer.errors import InvalidBundleError, UnsupportedQuantizationError
from arkinfer.graph.graph import WeightSpec, input_names
from arkinfer.quantize.schemes import GroupScheme, QuantizedTensor
from tests.support.manifests import MANIFEST

SCHEMES = st.builds(
    GroupScheme,
    st.sampled_from([4, 8]),
    st.sampled_from([16, 32, 64, 128]),
    st.sampled_from(["symmetric", "zero_point", "minimum"]),
    st.sampled_from(["fp16", "fp32"]),
) | st.builds(
    lambda group, scale: GroupScheme(2, group, "symmetric", scale),
    st.sampled_from([16, 48, 128, 256, 400]),
    st.sampled_from(["fp16", "fp32"]),
)
NUMPY: dict[str, Any] = {"f32": np.float32, "f16": np.float16, "bf16": ml_dtypes.bfloat16}


class Reader:
    """Random tensors that are what their infos say."""

    def __init__(self, infos: dict[str, TensorInfo], seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.floats: dict[str, NDArray[Any]] = {}
        self.quantized: dict[str, QuantizedTensor] = {}
        for name, info in infos.items():
            scheme = info.storage
            if not isinstance(scheme, GroupScheme):
                self.floats[name] = rng.standard_normal(info.shape).astype(NUMPY[scheme])
                continue
            outputs, inputs = info.shape
            grouped = (outputs, inputs // scheme.group_size)
            kind = np.float16 if scheme.scale_dtype == "fp16" else np.float32
            reals = rng.standard_normal((2, *grouped)).astype(kind).astype(np.float32)
            top = 1 << scheme.bits
            offsets: Any = {
                "symmetric": None,
                "zero_point": rng.integers(0, top, grouped, dtype=np.uint8),
                "minimum": reals[1],
            }[scheme.offset]
            codes = rng.integers(0, top, info.shape, dtype=np.uint8)
            self.quantized[name] = QuantizedTensor(scheme, codes, reals[0], offsets)

    def read_float(self, name: str, rows: slice) -> NDArray[Any]:
        return self.floats[name][rows]

    def read_quantized(self, name: str, rows: slice) -> QuantizedTensor:
        tensor = self.quantized[name]
        offsets = None if tensor.offsets is None else tensor.offsets[rows]
        return QuantizedTensor(tensor.scheme, tensor.codes[rows], tensor.scales[rows], offsets)


def checkpoint_of(storage: FloatType | GroupScheme, rows: list[int], inputs: int, seed: int) -> Any:
    infos = {f"part{i}": TensorInfo(f"part{i}", (n, inputs), storage) for i, n in enumerate(rows)}
    reader = Reader(infos, seed)
    return SimpleNamespace(tensors=infos, reader=reader, read=None), reader


def round_trip(path: Path, spec: WeightSpec, checkpoint: Any) -> dict[str, NDArray[Any]]:
    # The second of two copies lies at an offset.
    tensors = weights.lay_out(weights.tensors_of(spec) * 2)
    with BundleWriter(path) as writer:
        with writer.open_file("weights.bin") as file:
            for _ in range(2):
                weights.write_weight(file, spec, cast(Checkpoint, checkpoint))
        writer.finish(MANIFEST)
    found: dict[str, NDArray[Any]] = {}
    for tensor in tensors:
        values = weights.read_tensor(path / "weights.bin", tensor.entry())
        if tensor.name in found:
            np.testing.assert_array_equal(found[tensor.name], values)
        found[tensor.name] = values
    assert sorted(found) == sorted(input_names(spec))
    return found


ROWS = st.lists(st.integers(1, 40), min_size=1, max_size=3)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(SCHEMES, ROWS, st.integers(1, 3), st.sampled_from([1024, 4 << 20]), st.integers(0, 99))
def test_quantized(
    tmp_path_factory: pytest.TempPathFactory,
    scheme: GroupScheme,
    rows: list[int],
    groups: int,
    chunk: int,
    seed: int,
) -> None:
    inputs = groups * scheme.group_size
    checkpoint, reader = checkpoint_of(scheme, rows, inputs, seed)
    spec = WeightSpec("w", tuple(checkpoint.tensors), (sum(rows), inputs), scheme)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(weights, "_CHUNK_ELEMENTS", chunk)
        found = round_trip(tmp_path_factory.mktemp("w") / "x.ark", spec, checkpoint)
    parts = [reader.quantized[name] for name in spec.sources]
    np.testing.assert_array_equal(found["w.codes"], np.concatenate([p.codes for p in parts]))
    scales = np.concatenate([p.scales for p in parts])
    np.testing.assert_array_equal(found["w.scales"].astype(np.float32), scales)
    assert found["w.scales"].dtype.itemsize == (2 if scheme.scale_dtype == "fp16" else 4)
    if scheme.offset != "symmetric":
        name = "w.zero_points" if scheme.offset == "zero_point" else "w.minimums"
        want = np.concatenate([cast(NDArray[Any], p.offsets) for p in parts])
        np.testing.assert_array_equal(found[name].astype(want.dtype), want)


@settings(deadline=None, max_examples=30)
@given(st.sampled_from(["f32", "f16", "bf16"]), ROWS, st.integers(1, 40), st.integers(0, 99))
def test_float(
    tmp_path_factory: pytest.TempPathFactory,
    storage: FloatType,
    rows: list[int],
    inputs: int,
    seed: int,
) -> None:
    checkpoint, reader = checkpoint_of(storage, rows, inputs, seed)
    spec = WeightSpec("w", tuple(checkpoint.tensors), (sum(rows), inputs), storage)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(weights, "_CHUNK_ELEMENTS", 256)
        found = round_trip(tmp_path_factory.mktemp("w") / "x.ark", spec, checkpoint)
    want = np.concatenate([reader.floats[name] for name in spec.sources])
    np.testing.assert_array_equal(found["w"].view(np.uint8), want.view(np.uint8))


@pytest.mark.parametrize(
    "storage",
    [
        GroupScheme(4, 32),
        GroupScheme(8, 32),
        GroupScheme(2, 32),
        GroupScheme(2, 24),
        GroupScheme(2, 0),
        GroupScheme(2, 48, "zero_point"),
        GroupScheme(2, 48, "minimum"),
    ],
    ids=str,
)
def test_odd_shapes_are_refused(storage: GroupScheme) -> None:
    with pytest.raises(UnsupportedQuantizationError, match="cannot hold w"):
        weights.tensors_of(WeightSpec("w", ("w",), (16, 48), storage))


@pytest.mark.parametrize(
    "change",
    [
        {"offset": 1 << 40},
        {"offset": -64},
        {"shape": [16, 1 << 39]},
        {"shape": [0, 16]},
        {"shape": []},
        {"shape": [2.5, 4]},
        {"shape": None},
        {"dtype": "f64"},
        {"dtype": ["f32"]},
        {"name": 7, "dtype": "u4", "shape": [64]},
        {"dtype": "u2", "shape": [64]},
        {"dtype": "u2", "shape": [16, 24]},
        {"dtype": "u2", "shape": [4097, 16]},
    ],
)
def test_hostile_entries_are_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    path = tmp_path / "weights.bin"
    path.write_bytes(bytes(4096))
    entry = {"name": "w", "dtype": "f32", "shape": [16, 16], "offset": 0}
    assert weights.read_tensor(path, entry).shape == (16, 16)
    with pytest.raises(InvalidBundleError, match="outside weights.bin"):
        weights.read_tensor(path, entry | change)
