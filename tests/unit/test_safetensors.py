"""Hugging Face folders: config, tensors, rows, shards."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from arkinfer import converters
from arkinfer.config import RopeConfig, SparseConfig
from arkinfer.converters import hf_config
from arkinfer.errors import ConfigError, UnknownModelTypeError, UnsupportedQuantizationError
from tests.support.tiny_models import (
    KINDS,
    RELEASED_SPARSE,
    DType,
    tiny_config,
    tiny_tensors,
    write_safetensors,
    write_tiny_hf,
)

# The part of MiniCPM4-8B's released config.json that says something about the model.
MINICPM4_8B: dict[str, Any] = {
    "model_type": "minicpm",
    "architectures": ["MiniCPMForCausalLM"],
    "hidden_size": 4096,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 2,
    "intermediate_size": 16384,
    "vocab_size": 73448,
    "rms_norm_eps": 1e-06,
    "rope_theta": 10000.0,
    "max_position_embeddings": 32768,
    "rope_scaling": {
        "rope_type": "longrope",
        "long_factor": [1.0 + i for i in range(64)],
        "short_factor": [1.5 + i for i in range(64)],
        "original_max_position_embeddings": 32768,
    },
    "scale_emb": 12,
    "scale_depth": 1.4,
    "dim_model_base": 256,
    "mup_denominator": 32,
    "tie_word_embeddings": False,
    "hidden_act": "silu",
    "bos_token_id": 1,
    "eos_token_id": [2, 73440],
    "torch_dtype": "bfloat16",
}


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("dtype", ["f32", "f16", "bf16"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_tensor_is_read_as_it_was_written(
    tmp_path: Path, kind: str, dtype: DType, shards: int
) -> None:
    folder = write_tiny_hf(tmp_path / "model", kind, dtype=dtype, shards=shards)
    checkpoint = converters.open(folder)
    written = tiny_tensors(tiny_config(kind), 0, dtype)
    assert checkpoint.format == "safetensors"
    assert checkpoint.tensors.keys() == written.keys()
    for name, values in written.items():
        assert checkpoint.tensors[name].shape == values.shape
        assert checkpoint.tensors[name].storage == dtype
        stored = checkpoint.reader.read_float(name, slice(None))
        assert stored.dtype == values.dtype
        np.testing.assert_array_equal(checkpoint.read(name), values.astype(np.float32))
        np.testing.assert_array_equal(
            checkpoint.read(name, slice(3, 7)), values[3:7].astype(np.float32)
        )


def test_files_of_the_safetensors_library_are_read(tmp_path: Path) -> None:
    folder = write_tiny_hf(tmp_path, "llama")
    tensors = tiny_tensors(tiny_config("llama"), seed=5)
    safetensors.numpy.save_file(tensors, folder / "model.safetensors", {"format": "np"})
    checkpoint = converters.open(folder)
    for name, values in tensors.items():
        np.testing.assert_array_equal(checkpoint.read(name), values)


def test_reading_rows_maps_and_does_not_copy(tmp_path: Path) -> None:
    checkpoint = converters.open(write_tiny_hf(tmp_path, "llama"))
    rows = checkpoint.reader.read_float("model.embed_tokens.weight", slice(2, 4))
    assert isinstance(rows, np.memmap)
    assert rows.shape == (2, 128)
    assert checkpoint.read("model.embed_tokens.weight", slice(9, 9)).shape == (0, 128)


def test_minicpm4_8b_config() -> None:
    config = hf_config.normalize(MINICPM4_8B)
    assert config.head_dim == 128
    assert config.embedding_scale == 12.0
    assert config.residual_scale == pytest.approx(0.2474873734, abs=1e-10)
    assert config.logit_scale == 1 / 16
    assert not config.tie_word_embeddings
    assert config.rope.long_factors[:2] == (1.0, 2.0)
    assert config.rope.short_factors[:2] == (1.5, 2.5)
    assert (config.rope.original_max_position, config.rope.attention_factor) == (32768, 1.0)
    assert config.sparse is None
    assert (config.bos_id, config.eos_ids) == (1, (2, 73440))


def test_explicit_head_dim_wins() -> None:
    # MiniCPM4-3B: 32 heads of 128 over a hidden size of 2560.
    config = hf_config.normalize(MINICPM4_8B | {"hidden_size": 2560, "head_dim": 128})
    assert config.head_dim == 128
    assert config.logit_scale == 1 / 10


def test_extended_longrope_scales_attention() -> None:
    config = hf_config.normalize(MINICPM4_8B | {"max_position_embeddings": 131072})
    expected = math.sqrt(1 + math.log(4) / math.log(32768))
    assert config.rope.attention_factor == pytest.approx(expected)
    assert config.rope.attention_factor == pytest.approx(1.064581, abs=1e-6)


@pytest.mark.parametrize("name", ["longrope", "su"])
def test_both_names_of_longrope(name: str) -> None:
    scaling = MINICPM4_8B["rope_scaling"] | {"type": name}
    del scaling["rope_type"]
    config = hf_config.normalize(MINICPM4_8B | {"rope_scaling": scaling})
    assert len(config.rope.short_factors) == 64


def test_rope_parameters_of_newer_configs() -> None:
    values = {k: v for k, v in MINICPM4_8B.items() if k not in ("rope_scaling", "rope_theta")}
    values["rope_parameters"] = {"rope_type": "default", "rope_theta": 5e5}
    assert hf_config.normalize(values).rope == RopeConfig(5e5)


@pytest.mark.parametrize(
    ("positions", "generation", "lse"), [(32768, "A", "exact"), (65536, "B", "coarse")]
)
def test_sparse_config(positions: int, generation: str, lse: str) -> None:
    values = MINICPM4_8B | {"max_position_embeddings": positions, "sparse_config": RELEASED_SPARSE}
    assert hf_config.normalize(values).sparse == SparseConfig(generation=generation, lse=lse)


def test_sparse_config_can_name_its_generation() -> None:
    values = MINICPM4_8B | {"sparse_config": {"generation": "B", "lse": "exact", "dense_len": -1}}
    sparse = hf_config.normalize(values).sparse
    assert sparse == SparseConfig(generation="B", lse="exact", dense_len=-1)


def test_all_config_problems_come_at_once() -> None:
    values = dict(MINICPM4_8B)
    del values["vocab_size"], values["scale_emb"]
    values |= {"hidden_act": "gelu", "rms_norm_eps": -1, "num_key_value_heads": 5}
    values["rope_scaling"] = {"rope_type": "longrope", "short_factor": [1.0] * 3}
    values["sparse_config"] = {"block_size": 50, "use_nope": True}
    with pytest.raises(ConfigError) as caught:
        hf_config.normalize(values)
    for part in (
        "vocab_size is missing",
        "scale_emb is missing",
        "'gelu'",
        "rms_norm_eps is -1",
        "5 key-value heads",
        "short_factor has 3 values (expected 64",
        "long_factor is missing",
        "original_max_position_embeddings is missing",
        "block_size 50 is not a multiple of kernel_stride 16",
        "use_nope",
    ):
        assert part in str(caught.value)


@pytest.mark.parametrize("kind", ["yarn", "llama3", "linear", "dynamic"])
def test_other_rope_types_are_refused_by_name(kind: str) -> None:
    scaling = {"rope_type": kind, "factor": 4.0, "original_max_position_embeddings": 8192}
    with pytest.raises(ConfigError, match=kind):
        hf_config.normalize(MINICPM4_8B | {"rope_scaling": scaling})


@pytest.mark.parametrize("key", ["num_hidden_layers", "vocab_size", "num_attention_heads"])
@pytest.mark.parametrize("value", [0, -3, 1 << 31, "many", 2.5, True])
def test_sizes_have_limits(key: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=f"{key} is .*expected an integer from 1 to"):
        hf_config.normalize(MINICPM4_8B | {key: value})


def test_formats_are_found_by_listing() -> None:
    assert set(converters.formats()) == {"gguf", "safetensors"}


def test_unknown_model_type() -> None:
    with pytest.raises(UnknownModelTypeError, match="mamba.*llama, minicpm"):
        hf_config.normalize({"model_type": "mamba"})


def test_packed_weights_are_refused_by_name() -> None:
    values = MINICPM4_8B | {"quantization_config": {"quant_method": "gptq", "bits": 4}}
    with pytest.raises(UnsupportedQuantizationError, match="gptq"):
        hf_config.normalize(values)


def test_other_dtypes_are_refused_by_name(tmp_path: Path) -> None:
    folder = write_tiny_hf(tmp_path, "llama")
    data = {"model.norm.weight": np.ones(4, np.int32)}
    safetensors.numpy.save_file(data, folder / "model.safetensors")
    with pytest.raises(UnsupportedQuantizationError, match=r"model.norm.weight \(I32\)"):
        converters.open(folder)


def test_generation_settings(tmp_path: Path) -> None:
    folder = write_tiny_hf(tmp_path, "minicpm4-8b")
    checkpoint = converters.open(folder)
    assert checkpoint.generation == {"temperature": 0.8, "top_p": 0.8}
    settings = {"do_sample": False, "eos_token_id": 7, "temperature": 0.8, "top_k": "many"}
    (folder / "generation_config.json").write_text(json.dumps(settings))
    checkpoint = converters.open(folder)
    assert checkpoint.generation == {"temperature": 0.0}
    assert checkpoint.config.eos_ids == (2, 318, 7)


def test_rotary_buffers_may_have_any_dtype(tmp_path: Path) -> None:
    folder = write_tiny_hf(tmp_path, "llama")
    tensors = tiny_tensors(tiny_config("llama"))
    write_safetensors(folder / "model.safetensors", tensors)
    extra = {"model.layers.0.self_attn.rotary_emb.inv_freq": np.ones(4, np.float64)}
    safetensors.numpy.save_file(extra, folder / "more.safetensors")
    assert converters.open(folder).tensors.keys() == tensors.keys()
