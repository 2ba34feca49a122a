"""Random weights: their values, and the operands that stand for them."""

from __future__ import annotations

from dataclasses import dataclass

import ml_dtypes
import numpy as np

from arkinfer.kernels.matmul.reference import activation_group
from tests.support import packing
from tests.support.kernel_checks.check import Array
from tests.support.kernel_runner import Call

FLOAT_TYPES = {"f32": np.float32, "f16": np.float16, "bf16": ml_dtypes.bfloat16}
CACHE_TYPES = {"f32": np.float32, "f16": np.float16}


@dataclass
class Weight:
    """A random weight: its values, a bound of what kernels add up for it, and its operands.

    ``group`` counts the inputs that share an activation scale.
    """

    values: Array
    magnitude: Array
    group: int
    quantized: bool
    parts: list[tuple[str, Array, str, tuple[int, ...]] | None]

    def add_to(self, call: Call) -> None:
        for part in self.parts:
            if part is None:
                call.skip()
            else:
                name, data, dtype, shape = part
                call.add(name, data, dtype, shape)


def random_weight(
    rng: np.random.Generator, outputs: int, inputs: int, kind: str, group: int = 32
) -> Weight:
    """``kind`` is a float type, or bits, offset and scale type such as "u4 zero f16"."""
    shape = (outputs, inputs)
    if kind in FLOAT_TYPES:
        values = rng.standard_normal(shape).astype(FLOAT_TYPES[kind])
        exact = values.astype(np.float64)
        codes = ("codes", packing.panels(values), kind, shape)
        return Weight(exact, np.abs(exact), inputs, False, [codes, None, None])
    dtype, offset, scale_type = kind.split()
    most = {"u2": 3, "u4": 15, "i8": 255}[dtype]
    scale_dtype = CACHE_TYPES[scale_type]
    groups = (outputs, inputs // group)
    codes_array = rng.integers(0, most + 1, shape).astype(np.uint8)
    scales = (rng.uniform(0.5, 2.0, groups) / most).astype(scale_dtype)
    wide = np.repeat(scales.astype(np.float64), group, axis=1)
    offsets: Array | None = None
    if offset == "zero":
        zeros = rng.integers(0, most + 1, groups)
        values = wide * (codes_array - np.repeat(zeros, group, axis=1).astype(np.float64))
        offsets = zeros.astype(np.uint8) if dtype == "u4" else (zeros - 128).astype(np.int8)
    elif offset == "minimum":
        offsets = rng.standard_normal(groups).astype(scale_dtype)
        values = wide * codes_array + np.repeat(offsets.astype(np.float64), group, axis=1)
    else:
        middle = 1 if dtype == "u2" else (most + 1) // 2
        values = wide * (codes_array.astype(np.float64) - middle)
    magnitude = wide * most + np.abs(values)
    pack = {"u2": packing.codes2, "u4": packing.codes4, "i8": packing.codes8}[dtype]
    parts: list[tuple[str, Array, str, tuple[int, ...]] | None] = [
        ("codes", pack(codes_array), dtype, shape),
        ("scales", packing.panels(scales), scale_type, groups),
        None,
    ]
    if offsets is not None:
        offset_type = {"uint8": "u8", "int8": "i8"}.get(offsets.dtype.name, scale_type)
        parts[2] = ("offsets", packing.panels(offsets), offset_type, groups)
    together = activation_group(group) if dtype == "u2" else group
    return Weight(values, magnitude, together, True, parts)


WEIGHT_KINDS = list(FLOAT_TYPES) + [
    f"{dtype} {offset} {scale}"
    for dtype in ("u4", "i8")
    for offset in ("symmetric", "zero", "minimum")
    for scale in ("f16", "f32")
]
TERNARY_KINDS = ["u2 symmetric f16", "u2 symmetric f32"]
