"""block_sparse_attention as TIR for CPUs: that of ``kernels/attention`` over chosen blocks."""

from __future__ import annotations

from typing import Any

from arkinfer.kernels.attention.tir import Shape
from arkinfer.kernels.attention.tir_cpu import attend
from arkinfer.tir.loops import Loops, Rows


def block_sparse_attention(loops: Loops, shape: Shape, q: Rows, y: Rows) -> Any:
    """See :func:`arkinfer.kernels.attention.tir_cpu.attend`, with ``shape.most`` above zero."""
    assert shape.most > 0
    return attend(loops, shape, q, y)
