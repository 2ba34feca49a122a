"""Products on tensor cores, under emulation, against numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from arkinfer.backends._steps.plan import Buffer, View
from arkinfer.kernels.matmul import cuda
from arkinfer.kernels.matmul.reference import matmul
from arkinfer.quantize.schemes import GroupScheme, QuantizedTensor
from arkinfer.tir.matrix import Matrix

Array = NDArray[Any]
# Of the sum of the products' sizes: inputs and scaled codes are rounded to 11 bits, each by up to
# 2^-11 of itself, and sums to float32.
TOLERANCE = 2.0**-10 * 1.01

CASES = [  # scheme, outputs, inputs, residual
    (GroupScheme(4, 32, "symmetric"), 70, 160, True),
    (GroupScheme(4, 64, "zero_point"), 130, 448, False),
    (GroupScheme(4, 128, "minimum"), 17, 2176, True),
    (GroupScheme(8, 32, "symmetric"), 40, 96, False),
    (GroupScheme(8, 128, "zero_point"), 150, 256, True),
    (GroupScheme(4, 128, "symmetric"), 20, 1408, True),
    (GroupScheme(2, 128, "symmetric"), 40, 1152, True),
    (GroupScheme(2, 192, "symmetric", "fp32"), 140, 192, False),
]


def random_weight(scheme: GroupScheme, outputs: int, inputs: int) -> QuantizedTensor:
    rng = np.random.default_rng(inputs)
    groups = (outputs, inputs // scheme.group_size)
    scales = (rng.random(groups) * 0.01).astype(np.float16).astype(np.float32)
    if scheme.scale_dtype == "fp32":
        scales *= np.float32(1e-7)  # far below halves
    most = 3 if scheme.bits == 2 else 1 << scheme.bits
    codes = rng.integers(0, most, (outputs, inputs)).astype(np.uint8)
    offsets: Any = None
    if scheme.offset == "zero_point":
        offsets = rng.integers(0, most, groups).astype(np.uint8)
    elif scheme.offset == "minimum":
        offsets = (rng.standard_normal(groups) * 0.05).astype(np.float16).astype(np.float32)
    return QuantizedTensor(scheme, codes, scales, offsets)


def view(columns: int, start: int, behind: int) -> View:
    """Columns of a buffer that has others before and behind them."""
    return View(Buffer("buffer", start + columns + behind), start, columns)


@pytest.mark.parametrize(
    ("entry", "tokens"),
    [("one_row", 1), ("few_rows", 3), ("few_rows", 8), ("band", 33), ("tile", 130)],
)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_product(compile_cuda: Any, case: Any, entry: str, tokens: int) -> None:
    scheme, outputs, inputs, residual = case
    weight = random_weight(scheme, outputs, inputs)
    matrix = Matrix(outputs, inputs, scheme)
    codes, scales = matrix.pack(weight)
    rng = np.random.default_rng(tokens)
    x = rng.standard_normal((tokens, inputs + 8)).astype(np.float32)
    x[0, 5] = 2e5  # beyond the largest half
    before = rng.standard_normal((tokens, outputs + 5)).astype(np.float32)
    addend = rng.standard_normal((tokens, outputs + 3)).astype(np.float32)
    added = view(outputs, 1, 2) if residual else None
    defines = cuda.macros(matrix, view(inputs, 4, 4), view(outputs, 2, 3), added, 1 / 3)
    program = compile_cuda("matmul", defines)
    given: list[Any] = [x, codes, scales, addend, before, tokens]
    groups = (-(-outputs // cuda.FEW_OUTPUTS), 1, 1)
    if entry in ("band", "tile"):
        halves = np.full((tokens, inputs // 2), 0xFFFFFFFF, np.uint32)
        blocks = (-(-inputs // cuda.HALVES), tokens, 1)
        given[0] = program.run("to_halves", [x, halves], blocks, cuda.LANES)[-1]
        rows = {"band": cuda.BAND, "tile": cuda.TILE}[entry]
        groups = (-(-tokens // rows), -(-outputs // cuda.MANY_OUTPUTS), 1)
    y = program.run(entry, given, groups, cuda.LANES)[-1]
    values, inner = weight.dequantize(), x[:, 4:-4]
    expected = matmul(inner, values, addend[:, 1:-2] if residual else None, 1 / 3)
    bound = TOLERANCE * (np.abs(inner) @ np.abs(values).T) / 3 + 1e-5
    assert (np.abs(y[:, 2:-3] - expected) <= bound).all()
    assert np.array_equal(y[:, :2], before[:, :2]) and np.array_equal(y[:, -3:], before[:, -3:])


@pytest.mark.parametrize(
    "matrix",
    [
        Matrix(8, 48, GroupScheme(4, 16, "symmetric")),  # groups of less than 16 bytes
        Matrix(8, 80, GroupScheme(4, 80, "symmetric")),  # rows of no whole 16 bytes
        Matrix(8, 128, GroupScheme(4, 64, "symmetric", "fp32")),
        Matrix(8, 128, "f16"),
    ],
    ids=str,
)
def test_weights_that_are_left_to_others(matrix: Matrix) -> None:
    rows = view(matrix.inputs, 0, 0)
    assert cuda.macros(matrix, rows, rows, None, 1.0) is None
