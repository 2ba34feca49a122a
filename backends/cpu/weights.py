"""Between the graph's weights and ``weights.bin``: layout, packing in row chunks, unpacking."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from arkinfer.backends.cpu import pack
from arkinfer.bundle_writer import BundleFile
from arkinfer.checkpoint import Checkpoint
from arkinfer.errors import InvalidBundleError, UnsupportedQuantizationError
from arkinfer.graph.graph import WeightSpec
from arkinfer.quantize import materialize
from arkinfer.quantize.schemes import GroupScheme, QuantizedTensor

Array = NDArray[Any]
ALIGNMENT = 64
PARTS = ("codes", "scales", "zero_points", "minimums")
# Elements of one row chunk: bounds the memory of packing to some hundred MB.
_CHUNK_ELEMENTS = 4 << 20

_BITS = {"f32": 32, "f16": 16, "bf16": 16, "i32": 32, "u8": 8, "i8": 8, "u4": 4, "u2": 2}
_NUMPY: Mapping[str, Any] = {
    "f32": np.dtype("<f4"),
    "f16": np.dtype("<f2"),
    "bf16": np.dtype(ml_dtypes.bfloat16),
    "u8": np.dtype("u1"),
    "i8": np.dtype("i1"),
    "u4": np.dtype("u1"),
    "u2": np.dtype("u1"),
}
# By the bits of a scheme: dtype, the multiple that its inputs must be, and the packer.
_CODES: Mapping[int, tuple[str, int, Callable[[NDArray[np.uint8]], Array]]] = {
    2: ("u2", 16, pack.pack_codes2),
    4: ("u4", 8, pack.pack_codes4),
    8: ("i8", 4, pack.pack_codes8),
}


@dataclass(frozen=True)
class PackedTensor:
    """One entry of the plan's ``weights``: logical shape, and where its bytes lie."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int = 0

    @property
    def bytes(self) -> int:
        """Size in the file, padding of the last panel included."""
        if len(self.shape) == 1:
            return self.shape[0] * _BITS[self.dtype] // 8
        return pack.packed_bytes(self.shape[0], self.shape[1], _BITS[self.dtype])

    def entry(self) -> dict[str, Any]:
        """As it is written in ``plan.json``."""
        return {
            "name": self.name,
            "dtype": self.dtype,
            "shape": list(self.shape),
            "offset": self.offset,
            "bytes": self.bytes,
        }


def tensors_of(spec: WeightSpec) -> list[PackedTensor]:
    """The packed tensors of one weight, without offsets.

    Raises:
        UnsupportedQuantizationError: a scheme or shape that the layouts cannot hold.
    """
    storage = spec.storage
    if len(spec.shape) == 1 and not isinstance(storage, GroupScheme):
        return [PackedTensor(spec.name, "f32", spec.shape)]
    if not isinstance(storage, GroupScheme):
        return [PackedTensor(spec.name, storage, spec.shape)]
    dtype, multiple, _ = _CODES[storage.bits]
    inputs = spec.shape[-1]
    odd = storage.group_size < 1 or inputs % storage.group_size
    if storage.bits == 2:
        odd = odd or storage.group_size % multiple or storage.offset != "symmetric"
    if len(spec.shape) != 2 or inputs % multiple or odd:
        raise UnsupportedQuantizationError(
            f"the cpu backend cannot hold {spec.name} {list(spec.shape)} as {storage}",
            f"inputs that are a multiple of {multiple} and of the group size "
            f"{storage.group_size}, and symmetric groups of a multiple of 16 where ternary",
            "compile with another --quant",
        )
    grouped = (spec.shape[0], inputs // storage.group_size)
    floats = "f16" if storage.scale_dtype == "fp16" else "f32"
    parts = [
        PackedTensor(f"{spec.name}.codes", dtype, spec.shape),
        PackedTensor(f"{spec.name}.scales", floats, grouped),
    ]
    if storage.offset == "zero_point":
        zero = "u8" if storage.bits == 4 else "i8"
        parts.append(PackedTensor(f"{spec.name}.zero_points", zero, grouped))
    elif storage.offset == "minimum":
        parts.append(PackedTensor(f"{spec.name}.minimums", floats, grouped))
    return parts


def lay_out(tensors: Sequence[PackedTensor]) -> list[PackedTensor]:
    """The same tensors one after the other, each at a multiple of 64 bytes."""
    result, offset = [], 0
    for tensor in tensors:
        offset = -(-offset // ALIGNMENT) * ALIGNMENT
        result.append(PackedTensor(tensor.name, tensor.dtype, tensor.shape, offset))
        offset += tensor.bytes
    return result


def _row_chunks(shape: tuple[int, ...]) -> Iterator[slice]:
    rows = max(pack.PANEL, _CHUNK_ELEMENTS // shape[1] // pack.PANEL * pack.PANEL)
    for start in range(0, shape[0], rows):
        yield slice(start, min(start + rows, shape[0]))


def write_weight(file: BundleFile, spec: WeightSpec, checkpoint: Checkpoint) -> None:
    """Pack one weight and append its parts in the order of :func:`tensors_of`.

    Rows are read and packed in chunks; only scales and offsets are held until
    the codes are written.
    """
    file.align(ALIGNMENT)
    if len(spec.shape) == 1:
        values = materialize.rows(spec, checkpoint, slice(0, spec.shape[0]))
        file.write(_bytes(np.asarray(values, dtype=np.float32)))
        return
    scheme = spec.storage
    scales: list[Array] = []
    offsets: list[Array] = []
    for rows in _row_chunks(spec.shape):
        part = materialize.rows(spec, checkpoint, rows)
        if isinstance(part, QuantizedTensor):
            _, _, pack_codes = _CODES[part.scheme.bits]
            file.write(_bytes(pack_codes(part.codes)))
            scales.append(pack.pack_matrix(part.scales))
            if part.offsets is not None:
                offsets.append(pack.pack_matrix(part.offsets))
        else:
            file.write(_bytes(pack.pack_matrix(part)))
    if isinstance(scheme, GroupScheme):
        floats = np.float16 if scheme.scale_dtype == "fp16" else np.float32
        file.align(ALIGNMENT)
        for piece in scales:
            file.write(_bytes(piece.astype(floats)))
        if offsets:
            file.align(ALIGNMENT)
        for piece in offsets:
            if scheme.offset == "minimum":
                file.write(_bytes(piece.astype(floats)))
            else:
                file.write(_bytes(piece if scheme.bits == 4 else piece ^ np.uint8(0x80)))


def write_vector(file: BundleFile, values: NDArray[np.float32]) -> None:
    """Append a plain float32 vector."""
    file.align(ALIGNMENT)
    file.write(_bytes(np.asarray(values, dtype=np.float32)))


def _bytes(values: Array) -> memoryview:
    # bfloat16 has no buffer protocol; its bytes do.
    return np.ascontiguousarray(values).reshape(-1).view(np.uint8).data


def read_tensor(path: Path, entry: Mapping[str, Any]) -> Array:
    """One tensor of ``weights.bin`` in its logical shape.

    Codes come back as uint8 (8-bit codes and zero points with 128 added back).

    Raises:
        InvalidBundleError: the entry does not describe bytes of the file.
    """
    tensor = _checked(entry, path)
    dtype = _NUMPY[tensor.dtype]
    count = tensor.bytes // dtype.itemsize
    flat: Array = np.memmap(path, dtype, "r", tensor.offset, (count,))
    if len(tensor.shape) == 1:
        return np.array(flat)
    outputs, inputs = tensor.shape
    if tensor.dtype == "u2":
        return pack.unpack_codes2(flat, outputs, inputs)
    if tensor.dtype == "u4":
        return pack.unpack_codes4(flat, outputs, inputs)
    if tensor.name.endswith(".codes"):
        return pack.unpack_codes8(flat, outputs, inputs)
    values = pack.unpack_matrix(flat, outputs, inputs)
    return values.view(np.uint8) ^ np.uint8(0x80) if tensor.dtype == "i8" else values


def _checked(entry: Mapping[str, Any], path: Path) -> PackedTensor:
    try:
        shape = tuple(entry["shape"])
        tensor = PackedTensor(str(entry["name"]), entry["dtype"], shape, entry["offset"])
        numbers = [tensor.offset, *shape]
        sound = (
            tensor.dtype in _NUMPY
            and len(shape) in (1, 2)
            and all(type(n) is int and 0 < n < 1 << 40 for n in shape)
            and type(tensor.offset) is int
            and min(numbers) >= 0
            and not (tensor.dtype == "u4" and (len(shape) != 2 or shape[1] % 8))
            and not (tensor.dtype == "u2" and (len(shape) != 2 or shape[1] % 16))
            and not (tensor.name.endswith(".codes") and shape[-1] % 4)
            and tensor.offset + tensor.bytes <= path.stat().st_size
        )
    except (KeyError, TypeError, ValueError, AttributeError):
        sound = False
    if not sound:
        raise InvalidBundleError(f"plan.json: weight {str(entry)[:80]} lies outside weights.bin")
    return tensor
