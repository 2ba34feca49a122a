"""``CompressKeys``: means of overlapping windows of keys (InfLLM v2)."""

from __future__ import annotations

import onnx_ir as ir

from arkinfer.graph.builder import DOMAIN, OPSET, Builder

INT = ir.AttributeType.INT


def compress_keys() -> ir.Function:
    """``CompressKeys(K; kernel_size, kernel_stride) -> compressed``.

    K is FLOAT [1, kv_heads, tokens, head_dim] after rotary embedding; the output is
    FLOAT [1, kv_heads, windows, head_dim], where window j is the mean of the tokens
    from ``kernel_stride * j`` to ``kernel_stride * j + kernel_size``, exclusive, and
    only whole windows exist.
    """
    b = Builder(function=True)
    keys = b.input("K")
    size = b.attribute("kernel_size", INT)
    stride = b.attribute("kernel_stride", INT)
    length = b.dimension(keys, 2)

    # (length - size) // stride + 1, written so that the numerator cannot be negative.
    spare = b.op("Add", b.op("Sub", length, size), stride)
    windows = b.op("Div", b.op("Max", spare, b.integer(0)), stride)

    starts = b.op("Mul", b.op("Range", b.integer(0), windows, b.integer(1)), stride)
    offsets = b.op("Range", b.integer(0), size, b.integer(1))
    members = b.op("Add", b.op("Unsqueeze", starts, b.ints(1)), offsets)
    gathered = b.op("Gather", keys, members, axis=2)
    mean = b.op("ReduceMean", gathered, b.ints(3), name="compressed", keepdims=0)

    graph = ir.Graph(b.inputs, [mean], nodes=b.nodes, opset_imports={"": OPSET})
    attributes = [ir.Attr(name, INT, None) for name in ("kernel_size", "kernel_stride")]
    return ir.Function(DOMAIN, "CompressKeys", graph=graph, attributes=attributes)
