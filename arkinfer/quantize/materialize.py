"""The values of a graph weight, read from the checkpoint rows at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from arkinfer.checkpoint import Checkpoint
from arkinfer.quantize import rtn
from arkinfer.quantize.schemes import GroupScheme, QuantizedTensor

if TYPE_CHECKING:
    from arkinfer.graph.graph import WeightSpec

_FLOAT: dict[str, np.dtype[Any]] = {
    "f32": np.dtype(np.float32),
    "f16": np.dtype(np.float16),
    "bf16": np.dtype(ml_dtypes.bfloat16),
}


def rows(
    spec: WeightSpec, checkpoint: Checkpoint, rows: slice = slice(None)
) -> NDArray[Any] | QuantizedTensor:
    """Rows of a weight in its storage.

    The weight's rows are those of its sources, one after another. Bits that the
    checkpoint already stores in the wanted scheme are kept; everything else is
    rounded to nearest. Only the rows asked for are read, and groups never cross rows, so
    the result does not depend on how a weight is cut.

    Args:
        spec: the weight.
        checkpoint: where its sources are.
        rows: consecutive rows (a step of 1).

    Returns:
        float32, float16 or ml_dtypes.bfloat16 [rows, ...], or a quantized tensor.

    Raises:
        UnsupportedQuantizationError: see :func:`arkinfer.quantize.rtn.quantize`.
    """
    start, stop, step = rows.indices(spec.shape[0])
    if step != 1:
        raise ValueError(f"rows must be consecutive, not {rows}")
    parts: list[Any] = []
    first = 0
    for name in spec.sources:
        count = checkpoint.tensors[name].shape[0]
        begin, end = max(start - first, 0), min(stop - first, count)
        if begin < end:
            parts.append(_part(spec, checkpoint, name, slice(begin, end)))
        first += count
    if not parts:  # no rows asked for: an empty part still has the right type
        parts.append(_part(spec, checkpoint, spec.sources[0], slice(0, 0)))
    if isinstance(parts[0], QuantizedTensor):
        return _join(parts)
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _part(
    spec: WeightSpec, checkpoint: Checkpoint, name: str, rows: slice
) -> NDArray[Any] | QuantizedTensor:
    stored = checkpoint.tensors[name].storage
    wanted = spec.storage
    if isinstance(wanted, GroupScheme):
        if stored == wanted:
            return checkpoint.reader.read_quantized(name, rows)
        return rtn.quantize(checkpoint.read(name, rows), wanted)
    if stored == wanted:
        return checkpoint.reader.read_float(name, rows)
    return checkpoint.read(name, rows).astype(_FLOAT[wanted])


def _join(parts: list[QuantizedTensor]) -> QuantizedTensor:
    if len(parts) == 1:
        return parts[0]
    offsets: list[Any] = [part.offsets for part in parts if part.offsets is not None]
    return QuantizedTensor(
        parts[0].scheme,
        np.concatenate([part.codes for part in parts]),
        np.concatenate([part.scales for part in parts]),
        np.concatenate(offsets) if offsets else None,
    )
