"""What becomes of products' sums, in every schedule of matmul."""

from __future__ import annotations

from typing import Any, Literal

from tvm.script import tirx as T

from arkinfer.tir.halves import constant
from arkinfer.tir.loops import Rows

# Where the residual is: in a buffer of its own, or in y, which then becomes the sum.
Residual = Literal["none", "separate", "in_place"]


class Finish:
    """Adds the residual to a sum of products, and writes it."""

    def __init__(self, y: Rows, residual: Residual, addend: Rows | None, factor: float) -> None:
        self._y, self._residual, self._addend, self._factor = y, residual, addend or y, factor

    def store(self, y: Any, residual: Any, token: Any, output: Any, total: Any) -> None:
        """Write ``residual + factor * total``."""
        if self._factor != 1.0:
            total = total * constant(self._factor)
        if self._residual == "separate":
            total = total + residual[self._addend.at(token, output)]
        if self._residual == "in_place":
            total = total + y[self._y.at(token, output)]
        T.buffer_store(y, total, [self._y.at(token, output)])
