"""The ``ai.arkinfer`` operators of one sparse attention, alone in a graph in onnxruntime."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
from numpy.typing import NDArray

from arkinfer.config import SparseConfig
from arkinfer.graph.builder import DOMAIN, IR_VERSION, OPSET_IMPORTS, Builder
from arkinfer.graph.operators import functions
from arkinfer.kernels.compress_keys.reference import compress_keys
from arkinfer.kernels.select_blocks.reference import Selection, select_blocks

FLOAT, BOOL = ir.DataType.FLOAT, ir.DataType.BOOL


@dataclass(frozen=True)
class Outputs:
    """Logical arrays: fine and coarse [kv, windows, d], mask [kv, T, blocks], y [T, heads, d]."""

    fine: NDArray[np.float32]
    coarse: NDArray[np.float32]
    mask: NDArray[np.bool_]
    y: NDArray[np.float32]


@functools.cache
def _session(
    sparse: SparseConfig, heads: int, kv_heads: int, dim: int, scale: float
) -> onnxruntime.InferenceSession:
    b = Builder()
    q = b.input("q", FLOAT, [1, "tokens", heads * dim])
    k = b.input("k", FLOAT, [1, kv_heads, "length", dim])
    v = b.input("v", FLOAT, [1, kv_heads, "length", dim])
    past = b.op("Sub", b.dimension(k, 2), b.dimension(q, 1))
    fine, coarse = (
        b.op(
            "CompressKeys",
            k,
            name=name,
            domain=DOMAIN,
            kernel_size=times * sparse.kernel_size,
            kernel_stride=times * sparse.kernel_stride,
        )
        for name, times in (("fine", 1), ("coarse", 4))
    )
    names = ("block_size", "kernel_size", "kernel_stride", "init_blocks", "local_blocks")
    names += ("topk", "dense_len", "generation", "lse")
    attributes = {name: getattr(sparse, name) for name in names}
    mask = b.op(
        "SelectBlocks", q, fine, coarse, past, name="mask", domain=DOMAIN, scale=scale, **attributes
    )
    y = b.op(
        "BlockSparseAttention",
        q,
        k,
        v,
        mask,
        name="y",
        domain=DOMAIN,
        block_size=sparse.block_size,
        scale=scale,
    )
    shapes: list[tuple[ir.Value, ir.DataType, list[int | str]]] = [
        (fine, FLOAT, [1, kv_heads, "fine", dim]),
        (coarse, FLOAT, [1, kv_heads, "coarse", dim]),
        (mask, BOOL, [1, kv_heads, "tokens", "blocks"]),
        (y, FLOAT, [1, "tokens", heads * dim]),
    ]
    for value, dtype, shape in shapes:
        value.type, value.shape = ir.TensorType(dtype), ir.Shape(shape)
    graph = ir.Graph(
        b.inputs,
        [value for value, _, _ in shapes],
        nodes=b.nodes,
        initializers=b.initializers,
        opset_imports=OPSET_IMPORTS,
        name="operators",
    )
    model = ir.to_proto(ir.Model(graph, ir_version=IR_VERSION, functions=functions()))
    onnx.checker.check_model(model, full_check=True)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def run(
    sparse: SparseConfig, q: NDArray[Any], k: NDArray[Any], v: NDArray[Any], scale: float
) -> Outputs:
    """Run all operators for q [T, heads, d] behind k and v [kv, length, d]."""
    tokens, heads, dim = q.shape
    session = _session(sparse, heads, k.shape[0], dim, scale)
    feeds = {"q": q.reshape(1, tokens, -1), "k": k[None], "v": v[None]}
    fine, coarse, mask, y = session.run(
        None, {name: array.astype(np.float32) for name, array in feeds.items()}
    )
    return Outputs(fine[0], coarse[0], mask[0], y[0].reshape(tokens, heads, dim))


def expected(sparse: SparseConfig, q: NDArray[Any], k: NDArray[Any], scale: float) -> Selection:
    """The reference's selection for the same arguments."""
    return select_blocks(
        q,
        compress_keys(k, sparse.kernel_size, sparse.kernel_stride),
        compress_keys(k, 4 * sparse.kernel_size, 4 * sparse.kernel_stride),
        k.shape[1] - q.shape[0],
        scale,
        sparse,
    )
