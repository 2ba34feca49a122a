"""``weights.bin`` of a device: every weight in words (``arkinfer/tir/matrix.py``)."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from arkinfer.bundle_writer import BundleFile
from arkinfer.checkpoint import Checkpoint
from arkinfer.errors import UnsupportedQuantizationError
from arkinfer.graph.graph import WeightSpec, input_names
from arkinfer.quantize import materialize
from arkinfer.quantize.schemes import GroupScheme
from arkinfer.tir.matrix import Matrix

Array = NDArray[Any]
ALIGNMENT = 64
# Parts are whole tiles of products, and of this many rows at least.
_PART_ROWS = 64
_CHUNK_ELEMENTS = 4 << 20  # of rows packed at once: bounds the memory of packing


@dataclass(frozen=True)
class DeviceTensor:
    """One range of ``weights.bin``; ``shape`` is of the weight whose numbers or codes it holds."""

    name: str
    bytes: int
    offset: int = 0
    shape: tuple[int, ...] = ()


@dataclass(frozen=True)
class Part:
    """Rows of a weight that one buffer holds.

    Attributes:
        first: the first of them.
        matrix: how they lie there.
        codes, scales: names of their ranges; ``scales`` is empty for float weights.
    """

    first: int
    matrix: Matrix
    codes: str
    scales: str


def matrix_of(spec: WeightSpec) -> Matrix:
    """How a weight with two dimensions lies on a device.

    Raises:
        UnsupportedQuantizationError: its rows do not fill words.
    """
    matrix = Matrix(spec.shape[0], spec.shape[-1], spec.storage)
    if len(spec.shape) != 2 or not matrix.holdable:
        raise UnsupportedQuantizationError(
            f"no device layout holds {spec.name} {list(spec.shape)} as {spec.storage}",
            f"inputs and groups that are multiples of {matrix.per_word}",
            "compile with another --quant",
        )
    return matrix


def codes_name(spec: WeightSpec) -> str:
    """The range of a weight's codes, or of its numbers where it is not quantized."""
    return input_names(spec)[0]


def parts_of(spec: WeightSpec, largest: int = 0) -> list[Part]:
    """A weight with two dimensions in parts of at most ``largest`` bytes each (0: one part).

    Raises:
        UnsupportedQuantizationError: as :func:`matrix_of`; or some rows alone are larger.
    """
    whole = matrix_of(spec)
    scales = f"{spec.name}.scales" if whole.scale_words else ""
    if not largest or max(whole.code_bytes, whole.scale_bytes) <= largest:
        return [Part(0, whole, codes_name(spec), scales)]
    rows = largest // (max(whole.code_bytes, whole.scale_bytes) // whole.outputs)
    rows = rows // _PART_ROWS * _PART_ROWS
    if rows == 0:
        raise UnsupportedQuantizationError(
            f"{_PART_ROWS} rows of {spec.name} {list(spec.shape)} are more than one allocation",
            f"at most {largest} bytes",
            "compile for a device with larger allocations",
        )
    return [
        Part(
            first,
            dataclasses.replace(whole, outputs=min(rows, whole.outputs - first)),
            f"{codes_name(spec)}.{first}",
            f"{scales}.{first}" if scales else "",
        )
        for first in range(0, whole.outputs, rows)
    ]


def matrix_entry(parts: list[Part]) -> dict[str, Any]:
    """How a weight's parts are described in a launch table."""
    matrix = parts[0].matrix
    values = "offset"
    if not isinstance(matrix.storage, GroupScheme):
        values = matrix.storage
    elif matrix.storage.offset == "minimum":
        values = "minimum"
    return {
        "values": values,
        "inputs": matrix.inputs,
        "bits": matrix.bits,
        "group": matrix.group,
        "scale_words": matrix.scale_words,
        "parts": [
            {"outputs": part.matrix.outputs, "codes": part.codes}
            | ({"scales": part.scales} if part.scales else {})
            for part in parts
        ],
    }


def tensors_of(spec: WeightSpec, largest: int = 0) -> list[DeviceTensor]:
    """The ranges of one weight, without offsets."""
    if len(spec.shape) == 1:
        return [DeviceTensor(spec.name, spec.shape[0] * 4)]
    tensors = []
    for part in parts_of(spec, largest):
        shape = (part.matrix.outputs, part.matrix.inputs)
        tensors.append(DeviceTensor(part.codes, part.matrix.code_bytes, shape=shape))
        if part.scales:
            tensors.append(DeviceTensor(part.scales, part.matrix.scale_bytes))
    return tensors


def lay_out(tensors: list[DeviceTensor]) -> list[DeviceTensor]:
    """The same ranges one after the other, each at a multiple of 64 bytes."""
    result, offset = [], 0
    for tensor in tensors:
        offset = -(-offset // ALIGNMENT) * ALIGNMENT
        result.append(dataclasses.replace(tensor, offset=offset))
        offset += tensor.bytes
    return result


def write_weight(
    file: BundleFile, spec: WeightSpec, checkpoint: Checkpoint, largest: int = 0
) -> None:
    """Append the ranges of one weight, packing some rows at a time."""
    if len(spec.shape) == 1:
        write_vector(file, np.asarray(materialize.rows(spec, checkpoint, slice(0, spec.shape[0]))))
        return
    for part in parts_of(spec, largest):
        file.align(ALIGNMENT)
        scales: list[Array] = []
        for rows in _row_chunks(part):
            codes, words = part.matrix.pack(materialize.rows(spec, checkpoint, rows))
            file.write(codes.data)
            if words is not None:
                scales.append(words)
        if scales:
            file.align(ALIGNMENT)
        for words in scales:
            file.write(words.data)


def write_vector(file: BundleFile, values: Array) -> None:
    """Append a float32 vector."""
    file.align(ALIGNMENT)
    file.write(np.ascontiguousarray(values, np.float32).data)


def _row_chunks(part: Part) -> Iterator[slice]:
    rows = max(1, _CHUNK_ELEMENTS // part.matrix.inputs)
    end = part.first + part.matrix.outputs
    for start in range(part.first, end, rows):
        yield slice(start, min(start + rows, end))
