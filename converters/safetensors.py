"""Hugging Face folders: config.json, one or more .safetensors files, a tokenizer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from arkinfer.checkpoint import Checkpoint, FloatType, TensorInfo
from arkinfer.converters import hf_config, hf_tokenizer
from arkinfer.converters.json_file import read_json
from arkinfer.converters.safetensors_file import Entry, read_header
from arkinfer.errors import (
    CheckpointFormatError,
    ConfigError,
    DamagedCheckpointError,
    UnsupportedQuantizationError,
)
from arkinfer.quantize.schemes import QuantizedTensor

_INDEX = "model.safetensors.index.json"
_STORAGE: dict[str, FloatType] = {"F32": "f32", "F16": "f16", "BF16": "bf16"}


def matches(path: Path) -> bool:
    """Whether this is a folder with a config or with safetensors files."""
    return path.is_dir() and (
        (path / "config.json").exists() or next(path.glob("*.safetensors"), None) is not None
    )


def open(path: Path) -> Checkpoint:
    """Open a folder; see :class:`arkinfer.converters.Format`."""
    if not (path / "config.json").exists():
        raise ConfigError(
            f"'{path}' has no config.json",
            "the configuration beside the weights",
            "download config.json from the same place",
        )
    config = hf_config.normalize(read_json(path / "config.json"))
    generation: dict[str, Any] = {}
    if (path / "generation_config.json").exists():
        generation = read_json(path / "generation_config.json")
    eos_ids = tuple(dict.fromkeys((*config.eos_ids, *_eos_ids(generation))))
    config = replace(config, eos_ids=eos_ids)
    entries = _entries(path)
    _refuse_other_dtypes(path, entries)
    tensors = {
        name: TensorInfo(name, entry.shape, _STORAGE[entry.dtype])
        for name, entry in entries.items()
        if entry.dtype in _STORAGE
    }
    return Checkpoint(
        path=path,
        format="safetensors",
        config=config,
        tensors=tensors,
        reader=SafetensorsReader(entries),
        tokenizer=hf_tokenizer.read(path, config),
        generation=_generation(generation),
    )


class SafetensorsReader:
    """Maps rows of float tensors."""

    def __init__(self, entries: Mapping[str, Entry]) -> None:
        self._entries = entries

    def read_float(self, name: str, rows: slice) -> NDArray[Any]:
        """Rows as stored; the file is mapped until the result is dropped."""
        return self._entries[name].read(rows)

    def read_quantized(self, name: str, rows: slice) -> QuantizedTensor:
        """Never possible: these files hold floats.

        Raises:
            UnsupportedQuantizationError: always.
        """
        raise UnsupportedQuantizationError(
            f"tensor '{name}' rows {rows} are stored as {self._entries[name].dtype}",
            "a quantized tensor",
        )


def _entries(path: Path) -> dict[str, Entry]:
    """All tensors of the folder by name, from one file or from shards."""
    index = path / _INDEX
    weight_map = _weight_map(index) if index.exists() else None
    if weight_map is None:
        files = sorted(path.glob("*.safetensors"))
    else:
        files = [path / name for name in sorted(set(weight_map.values()))]
    if not files:
        raise CheckpointFormatError(
            f"'{path}' has a config.json but no .safetensors file",
            "weights in safetensors or GGUF",
            "convert other formats to safetensors first",
        )
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise DamagedCheckpointError(
            f"'{path}' lacks {_list(missing)}",
            f"every file that {_INDEX} names",
            "download the missing files",
        )
    entries: dict[str, Entry] = {}
    for file in files:
        header = read_header(file)
        twice = entries.keys() & header.keys()
        if twice:
            raise DamagedCheckpointError(
                f"'{file}' repeats tensors of another file: {_list(sorted(twice))}",
                "every tensor in one file",
                "remove the files that do not belong to this checkpoint",
            )
        entries |= header
    if weight_map is not None:
        absent = sorted(
            name
            for name, file in weight_map.items()
            if name not in entries or entries[name].file.name != file
        )
        if absent:
            raise DamagedCheckpointError(
                f"'{path}' lacks tensors that {_INDEX} names: {_list(absent)}",
                remedy="download the checkpoint again",
            )
    return entries


def _weight_map(index: Path) -> dict[str, str]:
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not all(
        isinstance(file, str) and file.endswith(".safetensors") and file == Path(file).name
        for file in weight_map.values()
    ):
        raise DamagedCheckpointError(
            f"'{index}' has no usable weight_map",
            "an object from tensor names to names of .safetensors files beside it",
            "download the file again",
        )
    return weight_map


def _refuse_other_dtypes(path: Path, entries: Mapping[str, Entry]) -> None:
    # Old checkpoints save rotary buffers, which no model reads.
    others = sorted(
        f"{name} ({entry.dtype})"
        for name, entry in entries.items()
        if entry.dtype not in _STORAGE and "rotary_emb" not in name
    )
    if others:
        raise UnsupportedQuantizationError(
            f"'{path}' has tensors of other dtypes: {_list(others)}",
            "float32, float16 or bfloat16",
            "use a checkpoint with float weights",
        )


def _eos_ids(generation: Mapping[str, Any]) -> tuple[int, ...]:
    value = generation.get("eos_token_id")
    items = value if isinstance(value, list) else [value]
    return tuple(item for item in items if type(item) is int and 0 <= item < 1 << 30)


def _generation(values: Mapping[str, Any]) -> dict[str, float]:
    """The sampling defaults; a model that says ``do_sample: false`` is greedy."""
    names = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty")
    numbers = {name: values.get(name) for name in names}
    result = {
        name: float(value)
        for name, value in numbers.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1e9
    }
    if values.get("do_sample") is False:
        result["temperature"] = 0.0
    return result


def _list(names: list[str]) -> str:
    shown = ", ".join(name[:100] for name in names[:8])
    return shown if len(names) <= 8 else f"{shown} and {len(names) - 8} more"
