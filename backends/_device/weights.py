"""``weights.bin`` of a device: every weight in words (``arkinfer/tir/matrix.py``)."""

from __future__ import annotations

import math
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
from arkinfer.tir.matrix import Matrix

Array = NDArray[Any]
ALIGNMENT = 64
_CHUNK_ELEMENTS = 4 << 20  # of rows packed at once: bounds the memory of packing


@dataclass(frozen=True)
class DeviceTensor:
    """One range of ``weights.bin``."""

    name: str
    bytes: int
    offset: int = 0


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


def scales_name(spec: WeightSpec) -> str:
    """The range of a quantized weight's scales and second numbers."""
    return f"{spec.name}.scales"


def tensors_of(spec: WeightSpec) -> list[DeviceTensor]:
    """The ranges of one weight, without offsets."""
    if len(spec.shape) == 1:
        return [DeviceTensor(spec.name, spec.shape[0] * 4)]
    matrix = matrix_of(spec)
    codes = DeviceTensor(codes_name(spec), matrix.code_bytes)
    if not matrix.scale_words:
        return [codes]
    return [codes, DeviceTensor(scales_name(spec), matrix.scale_bytes)]


def lay_out(tensors: list[DeviceTensor]) -> list[DeviceTensor]:
    """The same ranges one after the other, each at a multiple of 64 bytes."""
    result, offset = [], 0
    for tensor in tensors:
        offset = -(-offset // ALIGNMENT) * ALIGNMENT
        result.append(DeviceTensor(tensor.name, tensor.bytes, offset))
        offset += tensor.bytes
    return result


def write_weight(file: BundleFile, spec: WeightSpec, checkpoint: Checkpoint) -> None:
    """Append the ranges of one weight, packing some rows at a time."""
    file.align(ALIGNMENT)
    if len(spec.shape) == 1:
        write_vector(file, np.asarray(materialize.rows(spec, checkpoint, slice(0, spec.shape[0]))))
        return
    matrix = matrix_of(spec)
    scales: list[Array] = []
    for rows in _row_chunks(spec.shape):
        codes, words = matrix.pack(materialize.rows(spec, checkpoint, rows))
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


def _row_chunks(shape: tuple[int, ...]) -> Iterator[slice]:
    rows = max(1, _CHUNK_ELEMENTS // math.prod(shape[1:]))
    for start in range(0, shape[0], rows):
        yield slice(start, min(start + rows, shape[0]))
