"""GGUF files with their bits kept: float, Q4_0, Q4_1, Q8_0, Q4_K, Q6_K and TQ tensors."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from arkinfer.checkpoint import Checkpoint, FloatType, TensorInfo
from arkinfer.converters import gguf_config, gguf_file, gguf_tokenizer
from arkinfer.converters.ggml_blocks import BLOCK_TYPES
from arkinfer.converters.gguf_file import GgufFile, GgufTensor
from arkinfer.errors import (
    CheckpointFormatError,
    ConfigError,
    DamagedCheckpointError,
    UnsupportedQuantizationError,
)
from arkinfer.quantize.schemes import GroupScheme, QuantizedTensor

_FLOATS: dict[int, tuple[FloatType, np.dtype[Any]]] = {
    0: ("f32", np.dtype("<f4")),
    1: ("f16", np.dtype("<f2")),
    30: ("bf16", np.dtype(ml_dtypes.bfloat16)),
}
_FACTORS = (gguf_config.SHORT_FACTORS, gguf_config.LONG_FACTORS, "rope_freqs.weight")


def matches(path: Path) -> bool:
    """Whether this is a GGUF file, or a folder with one and no config."""
    if path.is_dir():
        return not (path / "config.json").exists() and any(path.glob("*.gguf"))
    if path.suffix.lower() == ".gguf":
        return True
    try:
        with path.open("rb") as file:
            return file.read(4) == gguf_file.MAGIC
    except OSError:
        return False


def open(path: Path) -> Checkpoint:
    """Open a file; see :class:`arkinfer.converters.Format`."""
    if path.is_dir():
        path = _only_file(path)
    file = gguf_file.read(path)
    if file.metadata.get("split.count") not in (None, 0, 1):
        raise CheckpointFormatError(
            f"'{path}' is one part of {file.metadata['split.count']}",
            "one file",
            "join the parts with llama-gguf-split --merge",
        )
    _refuse_unread_types(file)
    factors = {name: _factors(file, name) for name in _FACTORS if name in file.tensors}
    config = gguf_config.normalize(file.metadata, factors, tied="output.weight" not in file.tensors)
    names: dict[str, str] = {}
    for name in file.tensors:
        if name in factors:
            continue
        upstream = gguf_config.upstream_name(name)
        if names.setdefault(upstream, name) != name:
            raise DamagedCheckpointError(
                f"'{path}' has '{names[upstream][:60]}' and '{name[:60]}'", "one of these names"
            )
    heads = {
        upstream: config.num_heads if upstream.endswith("q_proj.weight") else config.num_kv_heads
        for upstream in names
        if upstream.endswith((".self_attn.q_proj.weight", ".self_attn.k_proj.weight"))
    }
    _check_heads(path, file, names, heads)
    return Checkpoint(
        path=path,
        format="gguf",
        config=config,
        tensors={new: _info(new, file.tensors[old]) for new, old in names.items()},
        reader=GgufReader(file, names, heads),
        tokenizer=gguf_tokenizer.read(file.metadata, config),
        generation=gguf_config.generation(file.metadata),
    )


class GgufReader:
    """Reads rows of a GGUF file's tensors under their upstream names.

    GGUF stores each head's query and key rows with the two halves interleaved: row ``2j + s``
    of a head of d rows is upstream's row ``s * d/2 + j``. Reading undoes that.

    Args:
        file: the parsed file.
        names: GGUF's name of every tensor by upstream name.
        heads: number of heads of the tensors with interleaved rows, by upstream name.
    """

    def __init__(self, file: GgufFile, names: Mapping[str, str], heads: Mapping[str, int]) -> None:
        self._file = file
        self._names = names
        self._heads = heads

    def read_float(self, name: str, rows: slice) -> NDArray[Any]:
        """Rows as stored; mapped until the result is dropped where they are in order."""
        tensor = self._file.tensors[self._names[name]]
        _, dtype = _FLOATS[tensor.type]
        if len(tensor.shape) == 1:
            vector: NDArray[Any] = self._file.rows(tensor.name, slice(None))[0].view(dtype)
            return vector[rows]
        start, stop, _ = rows.indices(tensor.shape[0])
        values: NDArray[Any] = self._raw(name, tensor, rows).view(dtype)
        return values.reshape(max(stop - start, 0), *tensor.shape[1:])

    def read_quantized(self, name: str, rows: slice) -> QuantizedTensor:
        """Rows with their bits kept; no other row is read."""
        tensor = self._file.tensors[self._names[name]]
        return BLOCK_TYPES[tensor.type].unpack(self._raw(name, tensor, rows))

    def _raw(self, name: str, tensor: GgufTensor, rows: slice) -> NDArray[np.uint8]:
        """Bytes of consecutive upstream rows, [rows * inner rows, row bytes]."""
        start, stop, step = rows.indices(tensor.shape[0])
        if step != 1:
            raise ValueError(f"rows must be consecutive, not {rows}")
        heads = self._heads.get(name)
        if heads is None:
            inner = math.prod(tensor.shape[1:-1])
            return self._file.rows(tensor.name, slice(start * inner, max(start, stop) * inner))
        head_dim = tensor.shape[0] // heads
        head, row = np.divmod(np.arange(start, max(start, stop)), head_dim)
        half, pair = np.divmod(row, head_dim // 2)
        stored: list[int] = (head * head_dim + 2 * pair + half).tolist()
        return self._file.rows(tensor.name, stored)


def _info(name: str, tensor: GgufTensor) -> TensorInfo:
    storage: FloatType | GroupScheme
    if tensor.type in _FLOATS:
        storage = _FLOATS[tensor.type][0]
    else:
        storage = BLOCK_TYPES[tensor.type].scheme
    return TensorInfo(name, tensor.shape, storage)


def _only_file(folder: Path) -> Path:
    files = sorted(folder.glob("*.gguf"))
    if len(files) != 1:
        raise CheckpointFormatError(
            f"'{folder}' has {len(files)} .gguf files", "one", "give the path of the file"
        )
    return files[0]


def _refuse_unread_types(file: GgufFile) -> None:
    unread = sorted(
        f"{tensor.name[:60]} ({tensor.type_name}{', not a matrix' if odd else ''})"
        for tensor in file.tensors.values()
        if (odd := tensor.type in BLOCK_TYPES and len(tensor.shape) != 2)
        or (tensor.type not in BLOCK_TYPES and tensor.type not in _FLOATS)
    )
    if unread:
        more = f" and {len(unread) - 6} more" if len(unread) > 6 else ""
        raise UnsupportedQuantizationError(
            f"'{file.path}' stores tensors in types that are not read: "
            f"{', '.join(unread[:6])}{more}",
            "F32, F16, BF16, or matrices in Q4_0, Q4_1, Q8_0, Q4_K, Q6_K, TQ1_0 or TQ2_0",
        )


def _factors(file: GgufFile, name: str) -> NDArray[np.float32]:
    tensor = file.tensors[name]
    if tensor.type != 0 or len(tensor.shape) != 1:
        raise ConfigError(
            f"'{file.path}' has {name} as {tensor.type_name} of shape {list(tensor.shape)}",
            "a vector of F32",
        )
    return np.array(file.rows(name, slice(None))[0].view("<f4"), np.float32)


def _check_heads(
    path: Path, file: GgufFile, names: Mapping[str, str], heads: Mapping[str, int]
) -> None:
    """Rows that do not divide into heads could not be put in order."""
    for upstream, count in heads.items():
        rows = file.tensors[names[upstream]].shape[0]
        if len(file.tensors[names[upstream]].shape) != 2 or rows % (2 * count):
            raise DamagedCheckpointError(
                f"'{path}' has {rows} rows in '{names[upstream][:60]}'",
                f"a matrix with a multiple of {2 * count} rows for {count} heads",
            )
