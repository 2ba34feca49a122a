"""GGUF: block formats, names, row order, metadata; the ``gguf`` package is the oracle."""

from __future__ import annotations

import math
from pathlib import Path

import gguf
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arkinfer import converters
from arkinfer.config import RopeConfig
from arkinfer.converters.ggml_blocks import BLOCK_TYPES, UNREAD_TYPES
from arkinfer.errors import ConfigError, UnknownModelTypeError, UnsupportedQuantizationError
from arkinfer.quantize.schemes import GroupScheme
from tests.support.tiny_gguf import QTypes, interleave, write_tiny_gguf
from tests.support.tiny_models import KINDS, tiny_config, tiny_tensors, write_tiny_hf

BLOCKS = sorted(BLOCK_TYPES)


@settings(deadline=None, max_examples=150)
@given(kind=st.sampled_from(BLOCKS), seed=st.integers(0, 2**32), rows=st.integers(1, 5))
def test_blocks_are_decoded_like_ggml(kind: int, seed: int, rows: int) -> None:
    block = BLOCK_TYPES[kind]
    raw = np.random.default_rng(seed).integers(
        0, 256, (rows, 3 * block.block_bytes), dtype=np.uint8
    )
    with np.errstate(all="ignore"):  # random scales are often infinite or not a number
        ours = block.unpack(raw)
        values = ours.dequantize()
        expected = gguf.quants.dequantize(raw, QTypes(kind))
    np.testing.assert_array_equal(values, expected)
    assert ours.scheme == block.scheme
    assert ours.codes.shape == (rows, 3 * block.weights)
    assert ours.codes.max() < 1 << block.scheme.bits


@pytest.mark.parametrize("kind", BLOCKS)
def test_fp16_scales_are_exact_where_the_scheme_says_so(kind: int) -> None:
    block = BLOCK_TYPES[kind]
    raw = np.random.default_rng(3).integers(0, 128, (64, block.block_bytes), dtype=np.uint8)
    with np.errstate(all="ignore"):
        tensor = block.unpack(raw)
    parts = [tensor.scales] if tensor.offsets is None else [tensor.scales, tensor.offsets]
    with np.errstate(over="ignore"):
        narrow = all(
            np.array_equal(part, part.astype(np.float16).astype(np.float32), equal_nan=True)
            for part in parts
        )
    assert narrow == (block.scheme.scale_dtype == "fp16")


@pytest.mark.parametrize("kind", [*BLOCKS, *UNREAD_TYPES])
def test_block_sizes(kind: int) -> None:
    if kind in BLOCK_TYPES:
        block = BLOCK_TYPES[kind]
        ours = (block.name, block.weights, block.block_bytes)
    else:
        ours = UNREAD_TYPES[kind]
    assert ours == (QTypes(kind).name, *gguf.GGML_QUANT_SIZES[QTypes(kind)])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("qtype", [QTypes.F32, QTypes.F16, QTypes.BF16])
def test_float_tensors_have_upstream_names_and_order(
    tmp_path: Path, kind: str, qtype: QTypes
) -> None:
    checkpoint = converters.open(write_tiny_gguf(tmp_path / "m.gguf", kind, qtype=qtype))
    written = tiny_tensors(tiny_config(kind))
    assert checkpoint.tensors.keys() == written.keys()
    tolerance = {QTypes.F32: 0.0, QTypes.F16: 2.0**-11, QTypes.BF16: 2.0**-8}[qtype]
    for name, values in written.items():
        assert checkpoint.tensors[name].shape == values.shape
        # Where fp16 is subnormal its step is 2^-24.
        np.testing.assert_allclose(checkpoint.read(name), values, tolerance, tolerance * 2**-13)


@pytest.mark.parametrize("kind", ["minicpm4-8b", "llama"])
@pytest.mark.parametrize("qtype", [QTypes.Q4_0, QTypes.Q4_1, QTypes.Q8_0])
def test_any_rows_of_quantized_tensors(tmp_path: Path, kind: str, qtype: QTypes) -> None:
    checkpoint = converters.open(write_tiny_gguf(tmp_path / "m.gguf", kind, qtype=qtype))
    config = checkpoint.config
    for name, values in tiny_tensors(tiny_config(kind)).items():
        if values.ndim == 1:
            continue
        heads = {"q_proj": config.num_heads, "k_proj": config.num_kv_heads}
        permuted = next((heads[key] for key in heads if key in name), None)
        # Quantization goes along rows, so quantizing commutes with ordering them.
        expected = gguf.quants.dequantize(gguf.quants.quantize(values, qtype), qtype)
        if permuted is not None:
            stored = interleave(values, permuted)
            assert not np.array_equal(stored, values)
        assert isinstance(checkpoint.tensors[name].storage, GroupScheme)
        np.testing.assert_array_equal(checkpoint.read(name), expected)
        for start, stop in ((0, 1), (3, 9), (len(values) - 2, len(values)), (5, 5)):
            part = checkpoint.reader.read_quantized(name, slice(start, stop))
            np.testing.assert_array_equal(part.dequantize(), expected[start:stop])


@pytest.mark.parametrize("kind", KINDS)
def test_config_equals_that_of_the_folder(tmp_path: Path, kind: str) -> None:
    ours = converters.open(write_tiny_gguf(tmp_path / "m.gguf", kind)).config
    theirs = converters.open(write_tiny_hf(tmp_path / "hf", kind)).config
    for field in (
        "model_type hidden_size num_layers num_heads num_kv_heads head_dim intermediate_size "
        "vocab_size max_position tie_word_embeddings rms_norm_eps embedding_scale logit_scale"
    ).split():
        assert getattr(ours, field) == getattr(theirs, field), field
    assert ours.rope.short_factors == pytest.approx(theirs.rope.short_factors, rel=1e-7)
    assert ours.rope.long_factors == pytest.approx(theirs.rope.long_factors, rel=1e-7)
    assert ours.rope.original_max_position == theirs.rope.original_max_position
    assert ours.rope.theta == theirs.rope.theta
    assert ours.residual_scale == pytest.approx(theirs.residual_scale, rel=1e-7)


def test_minicpm_files_without_scales_get_the_first_values(tmp_path: Path) -> None:
    path = write_tiny_gguf(tmp_path / "m.gguf", "minicpm4-8b", scales=False)
    config = converters.open(path).config
    assert config.embedding_scale == 12.0
    assert config.residual_scale == pytest.approx(1.4 / math.sqrt(2))
    assert config.logit_scale == 256 / config.hidden_size


def test_missing_rope_factors_are_reported(tmp_path: Path) -> None:
    path = write_tiny_gguf(
        tmp_path / "m.gguf",
        "minicpm4-8b",
        factors=False,
        metadata={"minicpm.rope.scaling.type": "longrope"},
    )
    with pytest.raises(ConfigError, match=r"rope_factors_short.*rope_factors_long"):
        converters.open(path)


def test_metadata_problems_come_at_once(tmp_path: Path) -> None:
    path = write_tiny_gguf(
        tmp_path / "m.gguf",
        "llama",
        metadata={
            "llama.block_count": None,
            "llama.rope.scaling.type": "yarn",
            "llama.rope.dimension_count": 4,
            "llama.expert_count": 8,
        },
    )
    with pytest.raises(ConfigError) as caught:
        converters.open(path)
    for part in ("block_count is missing", "'yarn'", "dimension_count is 4", "expert_count"):
        assert part in str(caught.value)


def test_unknown_architecture(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    writer = gguf.GGUFWriter(path, "mamba")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(UnknownModelTypeError, match="mamba"):
        converters.open(path)


def test_unread_types_are_named(tmp_path: Path) -> None:
    path = write_tiny_gguf(tmp_path / "m.gguf", "llama", qtype=QTypes.Q5_0)
    with pytest.raises(UnsupportedQuantizationError, match=r"Q5_0"):
        converters.open(path)


def test_a_folder_with_one_gguf_is_opened(tmp_path: Path) -> None:
    write_tiny_gguf(tmp_path / "m.gguf", "llama")
    checkpoint = converters.open(tmp_path)
    assert checkpoint.format == "gguf"
    assert checkpoint.config.rope == RopeConfig(10000.0)


def test_smollm2_is_read_like_the_gguf_package_reads_it(smollm2_gguf: Path) -> None:
    checkpoint = converters.open(smollm2_gguf)
    config = checkpoint.config
    assert (config.num_layers, config.num_heads, config.num_kv_heads) == (30, 9, 3)
    assert config.tie_word_embeddings
    reader = gguf.GGUFReader(smollm2_gguf)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, 30)
    stored = {tensor.name: tensor for tensor in reader.tensors}
    assert len(stored) == len(checkpoint.tensors) == 272
    for name in checkpoint.tensors:
        if ".layers." in name and not name.startswith(("model.layers.0.", "model.layers.29.")):
            continue
        tensor = stored[names.get_name(name, try_suffixes=(".weight",))]
        expected = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        ours = checkpoint.read(name)
        if "q_proj" in name or "k_proj" in name:
            ours = interleave(ours, 9 if "q_proj" in name else 3)
        np.testing.assert_array_equal(ours, expected)
