"""Products on tensor cores, under emulation, against numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from arkinfer.backends._steps.plan import Buffer, View
from arkinfer.kernels.matmul import cuda
from arkinfer.kernels.matmul.reference import matmul
from arkinfer.kernels.rms_norm.reference import rms_norm
from arkinfer.kernels.swiglu.reference import swiglu
from arkinfer.quantize.schemes import GroupScheme, QuantizedTensor
from arkinfer.tir.matrix import Matrix

Array = NDArray[Any]
# Of the sum of the products' sizes: inputs and scaled codes are rounded to 11 bits, each by up to
# 2^-11 of itself, and sums to float32.
TOLERANCE = 2.0**-10 * 1.01

EPSILON = 1e-5
PLAIN, ADDED, NORMED, GATED = frozenset(), {"residual"}, {"norm"}, {"norm", "gate"}
CASES: list[tuple[GroupScheme, int, int, Any]] = [  # scheme, outputs, inputs, what is fused
    (GroupScheme(4, 32, "symmetric"), 70, 160, ADDED),
    (GroupScheme(4, 64, "zero_point"), 144, 448, GATED),
    (GroupScheme(4, 128, "minimum"), 17, 2176, {"norm", "residual"}),
    (GroupScheme(8, 32, "symmetric"), 40, 96, PLAIN),
    (GroupScheme(8, 128, "zero_point"), 150, 256, ADDED),
    (GroupScheme(4, 128, "symmetric"), 20, 1408, NORMED),
    (GroupScheme(2, 128, "symmetric"), 48, 1152, {"gate"}),
    (GroupScheme(2, 192, "symmetric", "fp32"), 160, 192, GATED),
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
    scheme, rows, inputs, fused = case
    gated = "gate" in fused
    outputs = rows // 2 if gated else rows
    weight = random_weight(scheme, rows, inputs)
    matrix = Matrix(rows, inputs, scheme)
    codes, scales = matrix.pack(weight)
    rng = np.random.default_rng(tokens)
    x = rng.standard_normal((tokens, inputs + 8)).astype(np.float32)
    if "norm" not in fused:  # which would leave nothing of the others
        x[0, 5] = 2e5  # beyond the largest half
    norm = rng.standard_normal(inputs).astype(np.float32)
    before = rng.standard_normal((tokens, outputs + 5)).astype(np.float32)
    addend = rng.standard_normal((tokens, outputs + 3)).astype(np.float32)
    added = view(outputs, 1, 2) if "residual" in fused else None
    epsilon = EPSILON if "norm" in fused else None
    defines = cuda.macros(
        matrix, view(inputs, 4, 4), view(outputs, 2, 3), added, 1 / 3, epsilon, gated
    )
    program = compile_cuda("matmul", defines)
    given: list[Any] = [x, codes, scales, norm, addend, before, tokens]
    groups = (-(-rows // cuda.FEW_OUTPUTS), 1, 1)
    if entry in ("band", "tile"):
        halves = np.full((tokens, inputs // 2), 0xFFFFFFFF, np.uint32)
        blocks = (1 if "norm" in fused else -(-inputs // cuda.HALVES), tokens, 1)
        halves = program.run("to_halves", [x, norm, halves], blocks, cuda.LANES)[-1]
        given = [halves, codes, scales, addend, before, tokens]
        size = {"band": cuda.BAND, "tile": cuda.TILE}[entry]
        groups = (-(-tokens // size), -(-rows // cuda.MANY_OUTPUTS), 1)
    y = program.run(entry, given, groups, cuda.LANES)[-1]
    values, inner = weight.dequantize(), x[:, 4:-4]
    if "norm" in fused:
        inner = rms_norm(inner, norm, EPSILON)
    expected = matmul(inner, values, addend[:, 1:-2] if added else None, 1 / 3)
    bound = TOLERANCE * (np.abs(inner) @ np.abs(values).T) / 3 + 1e-5
    if gated:
        (gate, up), (of_gate, of_up) = (np.split(a, 2, axis=1) for a in (expected, bound))
        expected = swiglu(gate, up)
        # The slope of the gate is below 1.1, and it is no larger than its argument.
        bound = 1.1 * of_gate * (np.abs(up) + of_up) + np.abs(gate) * of_up + 1e-5
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


def test_what_a_product_does_not_take_over() -> None:
    matrix = Matrix(24, 128, GroupScheme(4, 128))
    x, y = view(128, 0, 0), view(12, 0, 0)
    assert cuda.macros(matrix, x, y, None, 1.0, gated=True) is None  # halves are not eights
    wide = Matrix(16, 32768, GroupScheme(4, 128))
    assert cuda.macros(wide, view(32768, 0, 0), y, None, 1.0, EPSILON) is None
