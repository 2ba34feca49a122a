"""Functions of float32 as TIR that LLVM can vectorise: those of the C library it cannot."""

from __future__ import annotations

import math
from typing import Any

from tvm.script import tirx as T

from arkinfer.tir.halves import as_float, constant

# log(2) in two parts; the first has few bits, so that its products with whole numbers are exact.
# (Cody and Waite 1980.)
_LN2_HIGH = 0.693359375
_LN2_LOW = math.log(2) - _LN2_HIGH
# exp(r) for |r| <= log(2) / 2 as 1 + r + r^2 p(r), fitted by minimax (Moshier's Cephes library).
_EXP = (1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 0.5)
_LEAST, _MOST = -87.0, 88.0


def exp(x: Any) -> Any:
    """The exponential, within 2 units in the last place; arguments end at -87 and 88."""
    clamped = T.min(T.max(x, T.float32(_LEAST)), T.float32(_MOST))
    turns = T.floor(clamped * constant(1 / math.log(2)) + T.float32(0.5))
    r = clamped - turns * T.float32(_LN2_HIGH) - turns * constant(_LN2_LOW)
    polynomial: Any = constant(_EXP[0])
    for coefficient in _EXP[1:]:
        polynomial = polynomial * r + constant(coefficient)
    power = as_float((T.Cast("int32", turns) + T.int32(127)) << T.int32(23))
    return (polynomial * r * r + r + T.float32(1)) * power
