"""Products on tensor cores, under emulation, against numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from arkinfer.kernels.matmul.reference import matmul
from arkinfer.quantize.schemes import GroupScheme, QuantizedTensor
from arkinfer.tir.matrix import Matrix

Array = NDArray[Any]
# Of the sum of the products' sizes: inputs and scaled codes are rounded to 11 bits, each by up to
# 2^-11 of itself, and sums to float32.
TOLERANCE = 2.0**-10 * 1.01
OFFSETS = ["symmetric", "zero_point", "minimum"]

CASES = [  # scheme, outputs, inputs, residual
    (GroupScheme(4, 32, "symmetric"), 70, 160, True),
    (GroupScheme(4, 64, "zero_point"), 130, 448, False),
    (GroupScheme(4, 128, "minimum"), 17, 2176, True),
    (GroupScheme(8, 32, "symmetric"), 40, 96, False),
    (GroupScheme(8, 128, "zero_point"), 150, 256, True),
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


def defines(scheme: GroupScheme, outputs: int, inputs: int, residual: bool) -> dict[str, Any]:
    """Buffers with columns around those of the product."""
    by_row = scheme.group_size == inputs
    return {
        "ARK_BITS": scheme.bits,
        "ARK_GROUP": scheme.group_size,
        "ARK_OFFSET": 3 if by_row else OFFSETS.index(scheme.offset),
        "ARK_SCALE_WORDS": 1 if scheme.scale_dtype == "fp16" else 2,
        "ARK_OUTPUTS": outputs,
        "ARK_INPUTS": inputs,
        "ARK_X_STRIDE": inputs + 8,
        "ARK_X_START": 4,
        "ARK_Y_STRIDE": outputs + 5,
        "ARK_Y_START": 2,
        "ARK_RESIDUAL": int(residual),
        "ARK_R_STRIDE": outputs + 3,
        "ARK_R_START": 1,
        "ARK_FACTOR": 1 / 3,
    }


@pytest.mark.parametrize(
    ("entry", "tokens"), [("few_rows", 1), ("few_rows", 8), ("band", 33), ("tile", 130)]
)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_product(compile_cuda: Any, case: Any, entry: str, tokens: int) -> None:
    scheme, outputs, inputs, residual = case
    weight = random_weight(scheme, outputs, inputs)
    codes, scales = Matrix(outputs, inputs, scheme).pack(weight)
    rng = np.random.default_rng(tokens)
    x = rng.standard_normal((tokens, inputs + 8)).astype(np.float32)
    x[0, 5] = 2e5  # beyond the largest half
    before = rng.standard_normal((tokens, outputs + 5)).astype(np.float32)
    addend = rng.standard_normal((tokens, outputs + 3)).astype(np.float32)
    program = compile_cuda("matmul", defines(scheme, outputs, inputs, residual))
    given: list[Any] = [x, codes, scales, addend, before, tokens]
    groups = (-(-outputs // 16), 1, 1)
    if entry != "few_rows":
        halves = np.full((tokens, inputs // 2), 0xFFFFFFFF, np.uint32)
        blocks = (-(-inputs // 512), tokens, 1)
        given[0] = program.run("to_halves", [x, halves], blocks, 256)[-1]
        groups = (-(-tokens // {"band": 32, "tile": 128}[entry]), -(-outputs // 128), 1)
    y = program.run(entry, given, groups, 256)[-1]
    values, inner = weight.dequantize(), x[:, 4:-4]
    expected = matmul(inner, values, addend[:, 1:-2] if residual else None, 1 / 3)
    bound = TOLERANCE * (np.abs(inner) @ np.abs(values).T) / 3 + 1e-5
    assert (np.abs(y[:, 2:-3] - expected) <= bound).all()
    assert np.array_equal(y[:, :2], before[:, :2]) and np.array_equal(y[:, -3:], before[:, -3:])
