"""``BlockSparseAttention``: causal attention over selected blocks (InfLLM v2)."""

from __future__ import annotations

import onnx_ir as ir

from arkinfer.graph.builder import DOMAIN, OPSET, Builder

INT, FLOAT = ir.AttributeType.INT, ir.AttributeType.FLOAT


def block_sparse_attention() -> ir.Function:
    """``BlockSparseAttention(Q, K, V, mask; block_size, scale) -> Y``.

    Q is FLOAT [1, tokens, heads * head_dim], the queries of the last ``tokens``
    positions; K and V are FLOAT [1, kv_heads, length, head_dim]; mask is BOOL
    [1, kv_heads, tokens, blocks]. A query attends to the tokens at or before it in the
    blocks of its mask. Y has the shape of Q.
    """
    b = Builder(function=True)
    q, k, v, mask = (b.input(name) for name in ("Q", "K", "V", "mask"))
    block_size = b.attribute("block_size", INT)
    one, zero = b.integer(1), b.integer(0)
    tokens = b.dimension(q, 1)
    kv_heads, length, head_dim = (b.dimension(k, axis) for axis in (1, 2, 3))
    blocks = b.dimension(mask, 3)
    heads = b.op("Div", b.dimension(q, 2), head_dim)
    group = b.op("Div", heads, kv_heads)

    # From blocks to tokens; the last block may reach past the end of the sequence.
    per_block = b.op("Unsqueeze", mask, b.ints(4))
    spread = b.op("Expand", per_block, b.vector(1, one, one, one, block_size))
    every = b.op("Reshape", spread, b.vector(1, kv_heads, tokens, b.op("Mul", blocks, block_size)))
    selected = b.op("Slice", every, b.ints(0), b.vector(length), b.ints(3))

    past = b.op("Sub", length, tokens)
    positions = b.op("Unsqueeze", b.op("Range", past, length, one), b.ints(1))
    causal = b.op("LessOrEqual", b.op("Range", zero, length, one), positions)
    visible = b.op("Unsqueeze", b.op("And", selected, causal), b.ints(2))

    # All query heads of a KV head share its mask.
    per_head = b.op("Expand", visible, b.vector(1, one, group, one, one))
    attn_mask = b.op("Reshape", per_head, b.vector(1, heads, tokens, length))

    split = b.op("Reshape", q, b.vector(1, tokens, heads, head_dim))
    by_head = b.op("Transpose", split, perm=[0, 2, 1, 3])
    attended = b.op(
        "Attention", by_head, k, v, attn_mask, scale=ir.RefAttr("scale", "scale", FLOAT)
    )
    y = b.op("Reshape", b.op("Transpose", attended, perm=[0, 2, 1, 3]), b.op("Shape", q), name="Y")

    graph = ir.Graph(b.inputs, [y], nodes=b.nodes, opset_imports={"": OPSET})
    attributes = [ir.Attr("block_size", INT, None), ir.Attr("scale", FLOAT, None)]
    return ir.Function(DOMAIN, "BlockSparseAttention", graph=graph, attributes=attributes)
