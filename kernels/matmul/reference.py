"""Linear layer without bias, with float or with int8 activations."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from arkinfer.kernels.swiglu.reference import swiglu


def matmul(
    x: NDArray[Any],
    weight: NDArray[Any],
    residual: NDArray[Any] | None = None,
    scale: float = 1.0,
) -> NDArray[np.float64]:
    """Return ``residual + scale * x @ weight.T``.

    Args:
        x: [tokens, inputs].
        weight: [outputs, inputs], already dequantized.
        residual: [tokens, outputs]; None is zero.

    Returns:
        float64 [tokens, outputs].
    """
    product = scale * (np.asarray(x, np.float64) @ np.asarray(weight, np.float64).T)
    return product if residual is None else np.asarray(residual, np.float64) + product


def gated_matmul(x: NDArray[Any], weight: NDArray[Any], scale: float = 1.0) -> NDArray[np.float64]:
    """Return ``silu(gate) * up`` of both halves of ``scale * x @ weight.T`` (``gated=1``).

    Args:
        x: [tokens, inputs].
        weight: [2 * outputs, inputs], the gate's rows first.

    Returns:
        float64 [tokens, outputs].
    """
    gate, up = np.split(matmul(x, weight, scale=scale), 2, axis=1)
    return swiglu(gate, up)


def activation_group(weight_group: int) -> int:
    """Inputs that share one activation scale beside ternary weights.

    Their scales may span whole rows, which is too long for one scale of
    activations: it is the largest divisor of ``weight_group`` that is a multiple
    of 16 and at most 128. With other weights, activations have the weights' groups.

    Args:
        weight_group: inputs per weight scale, a multiple of 16.
    """
    size = min(weight_group, 128)
    while weight_group % size:
        size -= 16
    return size


def quantize_activations(x: NDArray[Any], group_size: int) -> NDArray[np.float64]:
    """Round activations to the int8 grid that kernels with ``activations=0`` use.

    Each row's groups of ``group_size`` consecutive inputs share one scale,
    ``max|x| / 127``; codes are rounded to the nearest, halves to even. Where
    the scale is more than 0.04 of the row's root mean square, a second int8
    code holds the remainder in steps of 1/254 of the scale. A kernel with
    int8 activations computes ``matmul(quantize_activations(x, g), weight)``.

    Args:
        x: [tokens, inputs], inputs a multiple of ``group_size``.

    Returns:
        float64 [tokens, inputs]: the dequantized values.
    """
    values = np.asarray(x, np.float32)
    rows, inputs = values.shape
    grouped = values.reshape(rows, inputs // group_size, group_size)
    scales = np.abs(grouped).max(axis=-1, keepdims=True) / np.float32(127)
    quotients = grouped / np.where(scales > 0, scales, np.float32(1))
    codes = np.rint(quotients)
    fine = np.rint((quotients - codes) * np.float32(254)).astype(np.float64) / 254
    root_mean_square = np.sqrt(np.mean(np.square(values), axis=1))[:, None, None]
    coarse = scales > np.float32(0.04) * root_mean_square
    dequantized = (codes + np.where(coarse, fine, 0.0)) * scales
    return np.asarray(dequantized).reshape(rows, inputs)
