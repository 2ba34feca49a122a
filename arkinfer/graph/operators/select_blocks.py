"""``SelectBlocks``: which blocks of tokens each query attends to (InfLLM v2)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from arkinfer.graph.builder import DOMAIN, OPSET, Builder

INT, FLOAT, STRING = ir.AttributeType.INT, ir.AttributeType.FLOAT, ir.AttributeType.STRING

ATTRIBUTES = {
    "block_size": INT,
    "kernel_size": INT,
    "kernel_stride": INT,
    "init_blocks": INT,
    "local_blocks": INT,
    "topk": INT,
    "dense_len": INT,
    "generation": STRING,
    "lse": STRING,
    "scale": FLOAT,
}

# Logarithms of scores: of zero, of a block that must be taken, of one that cannot be.
NEVER, FORCED, EXCLUDED = -1e30, 3e38, -3e38


@dataclass(frozen=True)
class _Call:
    """Scalars and position vectors that the steps of the body share."""

    kv_heads: ir.Value
    tokens: ir.Value
    blocks: ir.Value
    ratio: ir.Value  # fine windows per block
    position: ir.Value  # [tokens, 1], absolute position of each query
    block: ir.Value  # [blocks]
    last: ir.Value  # [tokens, 1], the block that holds each query
    attribute: dict[str, ir.Value]


def select_blocks() -> ir.Function:
    """``SelectBlocks(Q, K1, K2, past_length; ...) -> mask``.

    Q is FLOAT [1, tokens, heads * head_dim]; K1 and K2 are FLOAT
    [1, kv_heads, windows, head_dim], keys compressed with kernel_size/kernel_stride and
    with four times both; past_length is INT64 [], the tokens in front of the first
    query. The mask is BOOL [1, kv_heads, tokens, blocks] over all past and new tokens.

    A window counts for a query when all its tokens are at or before the query. Its score
    is the sum over the query heads that share the KV head of exp(s - z), where s is
    ``scale * q·k`` and z the log-sum-exp over the coarse windows (lse "coarse") or over
    the fine ones ("exact"). A block's score is the highest of the windows
    ``r*b - 1 .. r*b + r - 1`` with r = block_size / kernel_stride. Generation "B" takes
    the first ``init_blocks``, the query's own block and ``local_blocks`` before it, and
    the best others, ``topk + local_blocks`` in all. Generation "A" takes the query's own
    block and ``local_blocks - 1`` before it, and apart from them ``topk`` by score, with
    the first ``init_blocks`` forced. Equal scores go to the smaller block. A query at
    position p with p + 1 < dense_len takes every block up to its own.
    ``kernel_size`` is twice ``kernel_stride``.
    """
    b = Builder(function=True)
    q, fine, coarse, past = (b.input(name) for name in ("Q", "K1", "K2", "past_length"))
    call = _prepare(b, q, fine, past)
    window_scores = _window_scores(b, call, q, fine, coarse)
    pooled = _pool(b, call, window_scores)
    mask = _choose(b, call, pooled)
    graph = ir.Graph(b.inputs, [mask], nodes=b.nodes, opset_imports={"": OPSET})
    attributes = [ir.Attr(name, kind, None) for name, kind in ATTRIBUTES.items()]
    return ir.Function(DOMAIN, "SelectBlocks", graph=graph, attributes=attributes)


def _prepare(b: Builder, q: ir.Value, fine: ir.Value, past: ir.Value) -> _Call:
    attribute = {name: b.attribute(name, kind) for name, kind in ATTRIBUTES.items()}
    zero, one = b.integer(0), b.integer(1)
    size = attribute["block_size"]
    tokens = b.dimension(q, 1)
    length = b.op("Add", past, tokens)
    blocks = b.op("Div", b.op("Sub", b.op("Add", length, size), one), size)
    position = b.op("Unsqueeze", b.op("Range", past, length, one), b.ints(1))
    return _Call(
        kv_heads=b.dimension(fine, 1),
        tokens=tokens,
        blocks=blocks,
        ratio=b.op("Div", size, attribute["kernel_stride"]),
        position=position,
        block=b.op("Range", zero, blocks, one),
        last=b.op("Div", position, size),
        attribute=attribute,
    )


def _window_scores(
    b: Builder, call: _Call, q: ir.Value, fine: ir.Value, coarse: ir.Value
) -> ir.Value:
    """Log of the score of every fine window: [1, kv_heads, tokens, blocks * ratio]."""
    head_dim = b.dimension(fine, 3)
    group = b.op("Div", b.op("Div", b.dimension(q, 2), head_dim), call.kv_heads)
    split = b.op("Reshape", q, b.vector(1, call.tokens, call.kv_heads, group, head_dim))
    queries = b.op("Transpose", split, perm=[0, 2, 3, 1, 4])

    # At least one window more than exists, so that nothing below reduces over an empty
    # axis. The added windows end after the last token, so no query sees them.
    slots = b.op("Mul", call.blocks, call.ratio)
    size, stride = call.attribute["kernel_size"], call.attribute["kernel_stride"]
    four = b.integer(4)
    fine_scores, fine_seen = _scores(b, call, queries, fine, slots, size, stride)
    coarse_scores, coarse_seen = _scores(
        b, call, queries, coarse, slots, b.op("Mul", size, four), b.op("Mul", stride, four)
    )

    exact = b.op("Equal", call.attribute["lse"], b.text("exact"))
    basis = b.op("Where", exact, fine_scores, coarse_scores)
    coarse_only = b.op("And", b.op("Not", exact), coarse_seen)
    basis_seen = b.op("Or", b.op("And", exact, fine_seen), coarse_only)
    masked = b.op("Where", basis_seen, basis, b.real(NEVER))
    lse = b.op("ReduceLogSumExp", masked, b.ints(-1), keepdims=1)
    summed = b.op("ReduceLogSumExp", b.op("Sub", fine_scores, lse), b.ints(2), keepdims=0)

    any_seen = b.op("ReduceMax", b.op("Cast", basis_seen, to=_INT64), b.ints(1), keepdims=1)
    scored = b.op("And", fine_seen, b.op("Cast", any_seen, to=_BOOL))
    return b.op("Where", scored, summed, b.real(NEVER))


def _scores(
    b: Builder,
    call: _Call,
    queries: ir.Value,
    compressed: ir.Value,
    slots: ir.Value,
    size: ir.Value,
    stride: ir.Value,
) -> tuple[ir.Value, ir.Value]:
    """Scores [1, kv_heads, group, tokens, slots], and who sees what [tokens, slots]."""
    missing = b.op("Sub", slots, b.dimension(compressed, 2))
    zero = b.integer(0)
    pads = b.vector(zero, missing)
    padded = b.op("Pad", compressed, pads, b.real(0.0), b.ints(2))
    keys = b.op("Unsqueeze", b.op("Transpose", padded, perm=[0, 1, 3, 2]), b.ints(2))
    scores = b.op("Mul", b.op("MatMul", queries, keys), call.attribute["scale"])
    starts = b.op("Mul", b.op("Range", zero, slots, b.integer(1)), stride)
    ends = b.op("Sub", b.op("Add", starts, size), b.integer(1))
    return scores, b.op("LessOrEqual", ends, call.position)


def _pool(b: Builder, call: _Call, window_scores: ir.Value) -> ir.Value:
    """The best window of each block: [1, kv_heads, tokens, blocks]."""
    shape = b.vector(1, call.kv_heads, call.tokens, call.blocks, call.ratio)
    own = b.op("Reshape", window_scores, shape)
    best = b.op("ReduceMax", own, b.ints(4), keepdims=0)
    # The last window of a block also overlaps the next block.
    ends = b.op("Gather", own, b.integer(-1), axis=4)
    shifted = b.op("Pad", ends, b.ints(1, -1), b.real(NEVER), b.ints(3))
    return b.op("Max", best, shifted)


def _choose(b: Builder, call: _Call, pooled: ir.Value) -> ir.Value:
    """The mask: [1, kv_heads, tokens, blocks]."""
    attribute = call.attribute
    is_b = b.op("Equal", attribute["generation"], b.text("B"))
    causal = b.op("LessOrEqual", call.block, call.last)
    initial = b.op("Less", call.block, attribute["init_blocks"])
    first_local = b.op("Sub", call.last, attribute["local_blocks"])
    local_a = b.op("And", b.op("Greater", call.block, first_local), causal)
    local_b = b.op("And", b.op("GreaterOrEqual", call.block, first_local), causal)

    forced = b.op("Or", initial, b.op("And", local_b, is_b))
    excluded = b.op("Or", b.op("Not", causal), b.op("And", local_a, b.op("Not", is_b)))
    ranked = b.op("Where", forced, b.real(FORCED), pooled)
    ranked = b.op("Where", excluded, b.real(EXCLUDED), ranked)

    # TopK gives equal values to the smaller index, by its definition.
    extra = b.op("Where", is_b, attribute["local_blocks"], b.integer(0))
    count = b.op("Min", b.op("Add", attribute["topk"], extra), call.blocks)
    values, indices = b.op_n("TopK", 2, ranked, b.op("Reshape", count, b.ints(1)), axis=3)
    taken = b.op("Greater", values, b.real(EXCLUDED))
    none = b.op("Expand", b.constant(np.array(False)), b.op("Shape", ranked))
    by_score = b.op("ScatterElements", none, indices, taken, axis=3)

    sparse = b.op("Or", by_score, b.op("And", local_a, b.op("Not", is_b)))
    seen = b.op("Add", call.position, b.integer(1))
    dense = b.op("Less", seen, attribute["dense_len"])
    return b.op("Or", sparse, b.op("And", dense, causal), name="mask")


_INT64, _BOOL = int(ir.DataType.INT64), int(ir.DataType.BOOL)
