"""The operators of the ``ai.arkinfer`` domain, each with its definition as a function body.

The bodies use standard operators only, so any ONNX runtime executes them; they are
written to be read, and are allowed to be slow.
"""

from __future__ import annotations

import onnx_ir as ir

from arkinfer.graph.operators.block_sparse_attention import block_sparse_attention
from arkinfer.graph.operators.compress_keys import compress_keys
from arkinfer.graph.operators.select_blocks import select_blocks

__all__ = ["block_sparse_attention", "compress_keys", "functions", "select_blocks"]


def functions() -> list[ir.Function]:
    """Fresh copies of all functions of the domain, for one model."""
    return [compress_keys(), select_blocks(), block_sparse_attention()]
