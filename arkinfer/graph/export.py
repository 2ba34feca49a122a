"""The graph together with its weights: an ordinary ONNX model that any runtime opens."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from arkinfer.checkpoint import Checkpoint
from arkinfer.errors import InvalidBundleError
from arkinfer.graph.graph import WeightSpec, input_names
from arkinfer.quantize import materialize
from arkinfer.quantize.schemes import QuantizedTensor

MODEL, DATA = "model.onnx", "model.onnx.data"

# Runtimes map initializers only from page boundaries.
_PAGE = 4096
# Elements that are read and rounded at once.
_CHUNK = 4 << 20
_PARTS = ("codes", "scales", "zero_points", "minimums")
_STATE = re.compile(r"input_ids|past_(key|value)\.\d+")
_STAGE = re.compile(r"embedding|final_norm|layers\.\d+\.(?!.*\.)(?!rows$)\w+")

Arrays = Mapping[str, NDArray[Any]]


def weight_names(model: ir.Model) -> list[str]:
    """The weights whose values are inputs of a graph, by :class:`WeightSpec` name."""
    inputs = [str(v.name) for v in model.graph.inputs if not _STATE.fullmatch(str(v.name))]
    quantized = {name.removesuffix(".codes") for name in inputs if name.endswith(".codes")}
    names = (base if (base := _base(name)) in quantized else name for name in inputs)
    return list(dict.fromkeys(names))


def weight_arrays(spec: WeightSpec, checkpoint: Checkpoint) -> dict[str, NDArray[Any]]:
    """The values of a weight by graph input, read and rounded in chunks of rows.

    Codes and zero points are uint8, one per element; scales and minimums float32.
    """
    rows = max(1, _CHUNK // max(1, math.prod(spec.shape[1:])))
    pieces: dict[str, list[NDArray[Any]]] = {name: [] for name in input_names(spec)}
    for start in range(0, spec.shape[0], rows):
        part = materialize.rows(spec, checkpoint, slice(start, min(start + rows, spec.shape[0])))
        arrays = (
            [part.codes, part.scales, part.offsets] if isinstance(part, QuantizedTensor) else [part]
        )
        given = [array for array in arrays if array is not None]
        for name, array in zip(pieces, given, strict=True):
            pieces[name].append(array)
    return {name: np.concatenate(found) for name, found in pieces.items()}


def export(
    model: ir.Model,
    weights: Iterable[Arrays],
    write: Callable[[memoryview], object],
    path: Path,
) -> None:
    """Turn the weight inputs into initializers and write the model.

    All named stages become outputs, so that they can be looked at. The initializers'
    bytes go to a file called :data:`DATA` beside ``path``.

    Args:
        model: a graph with weights as inputs; it is changed.
        weights: values by graph input, one weight after the other.
        write: appends bytes to the data file.
        path: of the ONNX file to write.

    Raises:
        InvalidBundleError: values that are missing, or do not fit an input.
    """
    body = model.graph
    pending = {str(v.name): v for v in body.inputs if not _STATE.fullmatch(str(v.name))}
    offset = 0
    for arrays in weights:
        for name, array in arrays.items():
            value = pending.pop(name, None)
            if value is None:
                raise InvalidBundleError(f"the graph has no weight input {name[:80]}")
            data = _encoded(value, array)
            offset += _pad(write, offset)
            write(data.data)
            _make_initializer(body, value, offset, data.nbytes, path)
            offset += data.nbytes
    if pending:
        raise InvalidBundleError(f"no values for the graph's inputs {', '.join(pending)}"[:400])
    expose_stages(model)
    ir.save(model, path)


def expose_stages(model: ir.Model) -> None:
    """Make every named stage an output of the graph."""
    body = model.graph
    kv_heads = next(v for v in body.inputs if v.name == "past_key.0").shape
    for node in body:
        for value in node.outputs:
            name = str(value.name)
            if not _STAGE.fullmatch(name) or value in body.outputs:
                continue
            kind = name.rsplit(".", 1)[-1]
            value.type = ir.TensorType(ir.DataType.BOOL if kind == "blocks" else ir.DataType.FLOAT)
            heads = None if kv_heads is None else kv_heads[1]
            if kind in ("blocks", "fine", "coarse"):
                value.shape = ir.Shape([1, heads, None, None])
            else:
                value.shape = ir.Shape([1, "tokens", None])
            body.outputs.append(value)


def _base(name: str) -> str:
    stem, _, part = name.rpartition(".")
    return stem if part in _PARTS else name


def _encoded(value: ir.Value, array: NDArray[Any]) -> NDArray[np.uint8]:
    """The bytes that ONNX stores for a value, as a flat array."""
    dtype = value.dtype
    if dtype is None or value.shape is None or tuple(value.shape.numpy()) != array.shape:
        raise InvalidBundleError(f"values of shape {list(array.shape)} for {value.name}")
    if dtype == ir.DataType.UINT4:
        flat = array.astype(np.uint8).reshape(-1)
        even = np.append(flat, np.uint8(0)) if flat.size % 2 else flat
        return np.asarray(even[0::2] | (even[1::2] << np.uint8(4)))
    converted = np.ascontiguousarray(array.astype(dtype.numpy(), copy=False))
    return converted.reshape(-1).view(np.uint8)


def _pad(write: Callable[[memoryview], object], offset: int) -> int:
    padding = -offset % _PAGE
    if padding:
        write(memoryview(bytes(padding)))
    return padding


def _make_initializer(body: ir.Graph, value: ir.Value, offset: int, size: int, path: Path) -> None:
    assert value.dtype is not None
    value.const_value = ir.ExternalTensor(
        DATA,
        offset,
        size,
        value.dtype,
        shape=ir.Shape(value.shape or ()),
        name=str(value.name),
        base_dir=path.parent,
    )
    body.inputs.remove(value)
    body.register_initializer(value)
