"""block_sparse_attention as TIR: that of ``kernels/attention`` over each token's chosen blocks."""

from __future__ import annotations

from typing import Any

from arkinfer.kernels.attention.tir import Shape, attend
from arkinfer.tir.loops import Loops, Rows


def block_sparse_attention(loops: Loops, shape: Shape, q: Rows, y: Rows) -> Any:
    """See :func:`arkinfer.kernels.attention.tir.attend`, with ``shape.most`` above zero."""
    assert shape.most > 0
    return attend(loops, shape, q, y)
