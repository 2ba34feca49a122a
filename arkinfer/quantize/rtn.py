"""Quantization by rounding each weight to the nearest code."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from arkinfer.errors import UnsupportedQuantizationError
from arkinfer.quantize.schemes import GroupScheme, QuantizedTensor

_FP16_MAX = 65504.0


def quantize(values: NDArray[np.float32], scheme: GroupScheme) -> QuantizedTensor:
    """Quantize a matrix group by group.

    Scales are rounded to ``scheme.scale_dtype`` first and the codes are chosen for
    the rounded scale. Symmetric scales are ``extreme / -2**(bits-1)``, where the extreme
    is the value of largest magnitude, so it is represented exactly but for the
    rounding of the scale, and scales may be negative. With zero points, the codes span
    the group's range extended to zero, so zero stays zero.

    Ternary groups follow BitCPM's rule: the scale is the mean magnitude, the codes are
    the nearest of -1, 0 and 1. A group that is ternary already, so that all of its
    values are 0 or of one magnitude, keeps its values: applying the rule once more
    would shrink them, because zeros lower the mean.

    Args:
        values: float32 [outputs, inputs].
        scheme: symmetric or with zero points; its group divides ``inputs``.

    Returns:
        Codes, scales and zero points. But for ternary groups, the error of a value is
        at most half a scale, or one scale for symmetric values opposite to the
        extreme, plus the rounding of the scale.

    Raises:
        UnsupportedQuantizationError: the group does not divide ``inputs``, a value
            is not finite, the values are too large for fp16 scales, or the scheme
            is one that only checkpoints use (minimums).
    """
    outputs, inputs = values.shape
    if inputs % scheme.group_size:
        raise UnsupportedQuantizationError(
            f"{scheme} cannot quantize rows of {inputs} weights",
            f"a multiple of {scheme.group_size}",
            "choose a smaller group",
        )
    shape = (outputs, inputs // scheme.group_size, scheme.group_size)
    grouped = np.asarray(values, np.float32).reshape(shape)
    low, high = grouped.min(axis=2), grouped.max(axis=2)
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        raise UnsupportedQuantizationError(
            "a weight is infinite or not a number", "finite weights", "check the checkpoint"
        )
    if scheme.bits == 2:
        return _ternary(grouped, np.maximum(-low, high), scheme)
    if scheme.offset == "symmetric":
        return _symmetric(grouped, low, high, scheme)
    if scheme.offset == "zero_point":
        return _zero_point(grouped, low, high, scheme)
    raise UnsupportedQuantizationError(
        f"weights cannot be rounded to {scheme}", "a symmetric or zero-point scheme"
    )


def is_ternary(values: NDArray[np.float32], group_size: int) -> bool:
    """Whether in each group all values are 0 or of one magnitude.

    Args:
        values: float32 [outputs, inputs], inputs a multiple of ``group_size``.
    """
    magnitudes = np.abs(values).reshape(len(values), -1, group_size)
    return bool(_one_magnitude(magnitudes, magnitudes.max(axis=2)).all())


def _one_magnitude(magnitudes: NDArray[np.float32], high: NDArray[np.float32]) -> NDArray[np.bool_]:
    kept: NDArray[np.bool_] = ((magnitudes == 0) | (magnitudes == high[:, :, None])).all(axis=2)
    return kept


def _symmetric(
    grouped: NDArray[np.float32],
    low: NDArray[np.float32],
    high: NDArray[np.float32],
    scheme: GroupScheme,
) -> QuantizedTensor:
    middle = scheme.middle
    extreme = np.where(-low > high, low, high)
    scales = _rounded((extreme / -middle).astype(np.float32), scheme)
    codes = _nearest(grouped, scales)
    codes += np.float32(middle)
    return _tensor(codes, scales, None, scheme)


def _ternary(
    grouped: NDArray[np.float32], high: NDArray[np.float32], scheme: GroupScheme
) -> QuantizedTensor:
    magnitudes = np.abs(grouped)
    kept = _one_magnitude(magnitudes, high)
    means = magnitudes.mean(axis=2, dtype=np.float64).astype(np.float32)
    scales = _rounded(np.where(kept, high, means), scheme)
    # The sign, because a scale that fp16 rounds to nothing must not choose the codes.
    codes = np.where(kept[:, :, None], np.sign(grouped), _nearest(grouped, scales))
    np.clip(codes, -1, 1, out=codes)
    codes += np.float32(scheme.middle)
    return _tensor(codes, scales, None, scheme)


def _zero_point(
    grouped: NDArray[np.float32],
    low: NDArray[np.float32],
    high: NDArray[np.float32],
    scheme: GroupScheme,
) -> QuantizedTensor:
    top = (1 << scheme.bits) - 1
    low, high = np.minimum(low, 0), np.maximum(high, 0)
    # Halves first: the difference of two finite float32 values can overflow.
    scales = _rounded((high / top - low / top).astype(np.float32), scheme)
    zeros = np.clip(_nearest(-low[:, :, None], scales), 0, top)
    codes = _nearest(grouped, scales)
    codes += zeros
    return _tensor(codes, scales, zeros[:, :, 0].astype(np.uint8), scheme)


def _rounded(scales: NDArray[np.float32], scheme: GroupScheme) -> NDArray[np.float32]:
    if scheme.scale_dtype == "fp32":
        return scales
    if scales.size and np.abs(scales).max() > _FP16_MAX:
        raise UnsupportedQuantizationError(
            f"weights as large as {np.abs(scales).max():.3g} scales",
            f"scales up to {_FP16_MAX:.0f} (fp16)",
            "check the checkpoint",
        )
    return scales.astype(np.float16).astype(np.float32)


def _nearest(grouped: NDArray[np.float32], scales: NDArray[np.float32]) -> NDArray[np.float32]:
    """Round values / scale; a scale of zero gives zero."""
    divisor = np.where(scales == 0, np.float32(np.inf), scales)[:, :, None]
    codes: NDArray[np.float32] = np.divide(grouped, divisor, dtype=np.float32)
    return np.rint(codes, out=codes)


def _tensor(
    codes: NDArray[np.float32],
    scales: NDArray[np.float32],
    zeros: NDArray[np.uint8] | None,
    scheme: GroupScheme,
) -> QuantizedTensor:
    np.clip(codes, 0, (1 << scheme.bits) - 1, out=codes)
    rows, groups, size = codes.shape
    flat = codes.reshape(rows, groups * size).astype(np.uint8)
    return QuantizedTensor(scheme, flat, scales, zeros)
