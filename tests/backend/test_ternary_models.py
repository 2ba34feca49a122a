"""Checkpoints whose projections are ternary already, as BitCPM4's: nothing of them is lost."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import arkinfer
from arkinfer import backends, compiler, converters
from arkinfer.backends import KeepsWeights
from arkinfer.bundle import Bundle
from arkinfer.errors import UnsupportedQuantizationError
from arkinfer.quantize import rtn
from arkinfer.quantize.schemes import GroupScheme
from tests.support.tiny_gguf import QTypes, write_tiny_gguf
from tests.support.tiny_models import tiny_config, tiny_tensors, write_safetensors, write_tiny_hf


def bitcpm(path: Path, group: int | None, kind: str = "minicpm4-8b") -> Path:
    """A tiny checkpoint with ternary projections in bfloat16; None is a scale per row."""
    write_tiny_hf(path, kind, dtype="bf16")
    tensors = tiny_tensors(tiny_config(kind), dtype="bf16")
    for name, values in tensors.items():
        if "_proj" in name:
            scheme = GroupScheme(2, group or values.shape[1], "symmetric", "fp32")
            tensor = rtn.quantize(values.astype(np.float32), scheme)
            scales = tensor.scales.astype(ml_dtypes.bfloat16).astype(np.float32)
            wide = np.repeat(scales, scheme.group_size, axis=1)
            signs = tensor.codes.astype(np.float32) - 1
            tensors[name] = (signs * wide).astype(ml_dtypes.bfloat16)
    write_safetensors(path / "model.safetensors", tensors)
    return path


def projections(bundle: Bundle) -> Iterator[tuple[str, dict[str, Any]]]:
    backend = backends.get("cpu")
    assert isinstance(backend, KeepsWeights)
    for name, storage in bundle.manifest.quantization.tensors.items():
        if "_proj" in name:
            assert storage.startswith("ternaryg"), name
            yield name, backend.weights(bundle, name)


@pytest.mark.parametrize("quant", [None, "keep", "ternaryg32"])
@pytest.mark.parametrize(("group", "found"), [(None, "ternary"), (64, "ternaryg64")])
def test_ternary_values_are_found_and_kept(
    tmp_path: Path, group: int | None, found: str, quant: str | None
) -> None:
    path = bitcpm(tmp_path / "model", group)
    checkpoint = converters.open(path)
    bundle = arkinfer.compile(path, quant=quant, context=128, output=tmp_path / "x.ark")
    assert bundle.manifest.quantization.requested == (found if quant != "ternaryg32" else quant)
    parts = {"qkv_proj": ("q_proj", "k_proj", "v_proj"), "gate_up_proj": ("gate_proj", "up_proj")}
    count = 0
    for name, arrays in projections(bundle):
        stem, kind = name.removesuffix(".weight").rsplit(".", 1)
        sources = [f"{stem}.{part}.weight" for part in parts.get(kind, (kind,))]
        stored = np.concatenate([checkpoint.read(source) for source in sources])
        scales = arrays[f"{name}.scales"].astype(np.float32)
        wide = np.repeat(scales, stored.shape[1] // scales.shape[1], axis=1)
        values = (arrays[f"{name}.codes"].astype(np.float32) - 1) * wide
        np.testing.assert_array_equal(values, stored)
        count += 1
    assert count == 8
    ours = arkinfer.load(bundle.path, kv="fp32", activations="fp32").session()
    oracle = arkinfer.load(bundle.path, backend="onnxruntime").session()
    tokens = [int(t) for t in np.random.default_rng(1).integers(3, 300, 40)]
    want = oracle.append(tokens, all_logits=True)
    error = np.abs(ours.append(tokens, all_logits=True) - want).max()
    assert error <= 1e-4 * np.abs(want).max()


def test_other_checkpoints_are_not_ternary(tmp_path: Path) -> None:
    path = write_tiny_hf(tmp_path / "plain", "minicpm4-8b", dtype="bf16")
    checkpoint = converters.open(path)
    assert compiler.choose_quant(checkpoint, None) == "w4g128"
    with pytest.raises(UnsupportedQuantizationError, match="no quantized tensors"):
        arkinfer.compile(path, quant="keep", output=tmp_path / "x.ark")


def test_a_row_of_other_values_is_noticed(tmp_path: Path) -> None:
    path = bitcpm(tmp_path / "model", None)
    config = tiny_config("minicpm4-8b")
    checkpoint = converters.open(path)
    tensors = {name: checkpoint.read(name) for name in tiny_tensors(config)}
    name = "model.layers.1.mlp.down_proj.weight"
    tensors[name][1, 5] *= 2
    write_safetensors(path / "model.safetensors", tensors)
    assert compiler.choose_quant(converters.open(path), None) == "w4g128"


def test_zeros_alone_are_not_ternary(tmp_path: Path) -> None:
    path = write_tiny_hf(tmp_path / "model", "llama")
    tensors = tiny_tensors(tiny_config("llama"))
    zeros = {name: np.zeros_like(values) for name, values in tensors.items()}
    write_safetensors(path / "model.safetensors", zeros)
    assert compiler.choose_quant(converters.open(path), None) == "w4g128"


@pytest.mark.parametrize("qtype", ["TQ1_0", "TQ2_0"])
def test_gguf_bits_are_kept(tmp_path: Path, qtype: str) -> None:
    path = write_tiny_gguf(tmp_path / "tiny.gguf", "minicpm4-8b", qtype=QTypes[qtype])
    checkpoint = converters.open(path)
    bundle = arkinfer.compile(path, context=128, output=tmp_path / "x.ark")
    assert bundle.manifest.quantization.requested == "keep"
    seen = set()
    for name, arrays in projections(bundle):
        if name not in checkpoint.tensors:
            continue
        seen.add(name)
        stored = checkpoint.reader.read_quantized(name, slice(None))
        np.testing.assert_array_equal(arrays[f"{name}.codes"], stored.codes)
        np.testing.assert_array_equal(arrays[f"{name}.scales"], stored.scales.astype(np.float16))
    assert len(seen) == 4  # o_proj and down_proj of two layers, which are not merged
