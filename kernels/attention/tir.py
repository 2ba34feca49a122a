"""Attention as TIR, dense or over chosen blocks, in one pass over the keys (flash attention).

A group has a key-value head and some rows, which are query heads of one or several tokens; it
takes a block of keys at a time. To score, each lane holds a key; to sum, pairs of dimensions. With
splits, a row's blocks are shared out among groups, and ``tir_combine.py`` joins what they found.
"""

from __future__ import annotations

from typing import Any

from tvm.script import tirx as T

from arkinfer.kernels.attention.tir_combine import combine
from arkinfer.kernels.attention.tir_shape import NEVER, Shape
from arkinfer.tir.caches import BLOCK
from arkinfer.tir.halves import constant
from arkinfer.tir.loops import LANES, Loops, Rows, ceil_div

__all__ = ["NEVER", "Shape", "attend", "combine"]


def attend(loops: Loops, shape: Shape, q: Rows, y: Rows) -> Any:
    """``y = softmax(scale * q K) V`` over the causal tokens, of chosen blocks where ``shape.most``.

    Arguments: q (float32), key, value (see :class:`Caches`), blocks (int32 [tokens,
    kv_heads * (1 + most)]: a count and as many blocks, or -1 for all), y (float32), partials
    (float32 [tokens, heads, splits, shape.partial], only with splits), tokens, past, capacity.
    """
    caches, per_head, splits, most = shape.caches, shape.per_head, shape.splits, shape.most
    head_dim, pairs, element = caches.head_dim, caches.pairs, caches.element
    heads, partial, group_tokens = shape.heads, shape.partial, shape.group_tokens
    rows = group_tokens * per_head
    own_pairs = ceil_div(pairs, LANES)
    count = rows * own_pairs * 2
    size = shape.block_size
    scale = shape.scale
    subgroups, shares = bool(loops.schedule.subgroup), loops.partials
    at_q, at_y = q.at, y.at
    row_width = caches.kv_heads * (1 + most)

    @T.prim_func(s_tir=True)
    def attend(
        p_q: T.handle,
        p_key: T.handle,
        p_value: T.handle,
        p_blocks: T.handle,
        p_y: T.handle,
        p_partials: T.handle,
        tokens: T.int32,
        past: T.int32,
        capacity: T.int32,
    ):
        q = T.match_buffer(p_q, (T.int32(),), "float32")
        key = T.match_buffer(p_key, (T.int32(),), element)
        value = T.match_buffer(p_value, (T.int32(),), element)
        blocks = T.match_buffer(p_blocks, (T.int32(),), "int32")
        y = T.match_buffer(p_y, (T.int32(),), "float32")
        partials = T.match_buffer(p_partials, (T.int32(),), "float32")
        for band in loops.groups(ceil_div(tokens, group_tokens), "x"):
            for pair in loops.groups(caches.kv_heads * splits, "y"):
                with T.sblock("group"):
                    T.reads()
                    T.writes()
                    head = pair // splits
                    split = pair % splits
                    queries = T.alloc_buffer((rows * head_dim,), "float32", scope=loops.shared)
                    scores = T.alloc_buffer((rows * BLOCK,), "float32", scope=loops.shared)
                    # What sub-groups find of a row's scores, where there are some.
                    found = T.alloc_buffer((rows * shares,), "float32", scope=loops.shared)
                    # Of each row: the highest score so far, what it makes of older sums, and
                    # the sum of weights.
                    highest = T.alloc_buffer((rows,), "float32", scope=loops.shared)
                    older = T.alloc_buffer((rows,), "float32", scope=loops.shared)
                    weights = T.alloc_buffer((rows,), "float32", scope=loops.shared)
                    own = T.alloc_buffer(
                        (loops.private_size(count),), "float32", scope=loops.private
                    )
                    mine = T.alloc_buffer(
                        (loops.private_size(rows),), "float32", scope=loops.private
                    )
                    bounds = T.alloc_buffer((3,), "int32", scope="local")
                    for lane in loops.lanes():
                        token = T.alloc_buffer((1,), "int32", scope="local")
                        for step in T.serial(ceil_div(rows * head_dim, LANES)):
                            if step * LANES + lane < rows * head_dim:
                                token[0] = T.min(
                                    band * group_tokens
                                    + (step * LANES + lane) // (per_head * head_dim),
                                    tokens - 1,
                                )
                                queries[step * LANES + lane] = q[
                                    at_q(
                                        token[0],
                                        head * per_head * head_dim
                                        + (step * LANES + lane) % (per_head * head_dim),
                                    )
                                ] * constant(scale)
                        for i in T.unroll(count):
                            own[loops.own(lane, i, count)] = T.float32(0)
                        if lane < rows:
                            highest[lane] = T.float32(NEVER)
                            older[lane] = T.float32(0)
                            weights[lane] = T.float32(0)
                    # How many blocks there are for these rows, the first of this group, and
                    # the first behind it.
                    bounds[0] = (past + T.min((band + 1) * group_tokens, tokens) - 1) // size + 1
                    if most > 0:
                        if blocks[band * row_width + head * (1 + most)] >= 0:
                            bounds[0] = T.min(blocks[band * row_width + head * (1 + most)], most)
                    bounds[1] = split * ceil_div(bounds[0], splits)
                    bounds[2] = T.min(bounds[1] + ceil_div(bounds[0], splits), bounds[0])
                    for entry in T.serial(T.max(bounds[2] - bounds[1], 0)):
                        block = T.alloc_buffer((1,), "int32", scope="local")
                        block[0] = bounds[1] + entry
                        if most > 0:
                            if blocks[band * row_width + head * (1 + most)] >= 0:
                                block[0] = blocks[
                                    band * row_width + head * (1 + most) + 1 + block[0]
                                ]
                        for lane in loops.lanes():
                            top = T.alloc_buffer((1,), "float32", scope="local")
                            for r in T.unroll(rows):
                                mine[loops.own(lane, r, rows)] = T.float32(0)
                            if lane < size:
                                for p in T.serial(pairs):
                                    both = T.alloc_buffer((2,), "float32", scope="local")
                                    both[0] = caches.load(
                                        key,
                                        caches.key_at(capacity, head, block[0] * size + lane, p),
                                        True,
                                    )[0]
                                    both[1] = caches.load(
                                        key,
                                        caches.key_at(capacity, head, block[0] * size + lane, p),
                                        True,
                                    )[1]
                                    for r in T.unroll(rows):
                                        mine[loops.own(lane, r, rows)] += (
                                            queries[r * head_dim + 2 * p] * both[0]
                                            + queries[r * head_dim + 2 * p + 1] * both[1]
                                        )
                            for r in T.unroll(rows):
                                if (
                                    lane >= size
                                    or block[0] * size + lane
                                    > past + band * group_tokens + r // per_head
                                ):
                                    mine[loops.own(lane, r, rows)] = T.float32(NEVER)
                                if subgroups:
                                    top[0] = loops.largest(mine[loops.own(lane, r, rows)])
                                    if loops.leads(lane):
                                        found[r * shares + loops.partial(lane)] = top[0]
                                else:
                                    scores[r * BLOCK + lane] = mine[loops.own(lane, r, rows)]
                        for lane in loops.lanes():
                            best = T.alloc_buffer((1,), "float32", scope="local")
                            if lane < rows:
                                best[0] = highest[lane]
                                if subgroups:
                                    for k in T.serial(shares):
                                        best[0] = T.max(best[0], found[lane * shares + k])
                                else:
                                    for k in T.serial(size):
                                        best[0] = T.max(best[0], scores[lane * BLOCK + k])
                                older[lane] = T.exp(highest[lane] - best[0])
                                highest[lane] = best[0]
                        for lane in loops.lanes():
                            top = T.alloc_buffer((1,), "float32", scope="local")
                            for r in T.unroll(rows):
                                # A row that has seen no key yet must not take these for the
                                # highest.
                                top[0] = T.if_then_else(
                                    mine[loops.own(lane, r, rows)] > T.float32(NEVER),
                                    T.exp(mine[loops.own(lane, r, rows)] - highest[r]),
                                    T.float32(0),
                                )
                                scores[r * BLOCK + lane] = top[0]
                                if subgroups:
                                    top[0] = loops.total(top[0])
                                    if loops.leads(lane):
                                        found[r * shares + loops.partial(lane)] = top[0]
                        for lane in loops.lanes():
                            total = T.alloc_buffer((1,), "float32", scope="local")
                            both = T.alloc_buffer((2,), "float32", scope="local")
                            if lane < rows:
                                total[0] = weights[lane] * older[lane]
                                if subgroups:
                                    for k in T.serial(shares):
                                        total[0] += found[lane * shares + k]
                                else:
                                    for k in T.serial(size):
                                        total[0] += scores[lane * BLOCK + k]
                                weights[lane] = total[0]
                            for i in T.unroll(own_pairs):
                                for r in T.unroll(rows):
                                    for part in T.unroll(2):
                                        own[loops.own(lane, (i * rows + r) * 2 + part, count)] *= (
                                            older[r]
                                        )
                                if i * LANES + lane < pairs:
                                    for k in T.serial(size):
                                        both[0] = caches.load(
                                            value,
                                            caches.value_at(
                                                capacity,
                                                head,
                                                block[0] * size + k,
                                                i * LANES + lane,
                                            ),
                                            False,
                                        )[0]
                                        both[1] = caches.load(
                                            value,
                                            caches.value_at(
                                                capacity,
                                                head,
                                                block[0] * size + k,
                                                i * LANES + lane,
                                            ),
                                            False,
                                        )[1]
                                        for r in T.unroll(rows):
                                            for part in T.unroll(2):
                                                own[
                                                    loops.own(
                                                        lane, (i * rows + r) * 2 + part, count
                                                    )
                                                ] += scores[r * BLOCK + k] * both[part]
                    for lane in loops.lanes():
                        token = T.alloc_buffer((1,), "int32", scope="local")
                        place = T.alloc_buffer((1,), "int32", scope="local")
                        for r in T.unroll(rows):
                            token[0] = band * group_tokens + r // per_head
                            place[0] = (
                                (token[0] * heads + head * per_head + r % per_head) * splits + split
                            ) * partial
                            if token[0] < tokens:
                                if splits > 1 and lane == 0:
                                    partials[place[0]] = highest[r]
                                    partials[place[0] + 1] = weights[r]
                                for i in T.unroll(own_pairs):
                                    if i * LANES + lane < pairs:
                                        for part in T.unroll(2):
                                            if splits > 1:
                                                partials[
                                                    place[0] + 2 + 2 * (i * LANES + lane) + part
                                                ] = own[
                                                    loops.own(
                                                        lane, (i * rows + r) * 2 + part, count
                                                    )
                                                ]
                                            else:
                                                y[
                                                    at_y(
                                                        token[0],
                                                        (head * per_head + r % per_head) * head_dim
                                                        + 2 * (i * LANES + lane)
                                                        + part,
                                                    )
                                                ] = (
                                                    own[
                                                        loops.own(
                                                            lane,
                                                            (i * rows + r) * 2 + part,
                                                            count,
                                                        )
                                                    ]
                                                    / weights[r]
                                                )

    return attend
