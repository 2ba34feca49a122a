"""Attention as TIR for CPUs: keys of a block in vectors, then dimensions of their values.

The same pass over the keys as :func:`arkinfer.kernels.attention.tir.attend`. Some rows, which are
query heads of one or several tokens, are computed together, so that a key is read once for them.
"""

from __future__ import annotations

import math
from typing import Any

from tvm.script import tirx as T

from arkinfer.kernels.attention.tir import NEVER, Shape
from arkinfer.tir.caches import BLOCK
from arkinfer.tir.functions import exp
from arkinfer.tir.halves import constant
from arkinfer.tir.loops import Loops, Rows, ceil_div


def attend(loops: Loops, shape: Shape, q: Rows, y: Rows) -> Any:
    """See :func:`arkinfer.kernels.attention.tir.attend`; caches hold one number an element."""
    caches, per_head, splits, most = shape.caches, shape.per_head, shape.splits, shape.most
    head_dim, element, heads, partial = caches.head_dim, caches.element, shape.heads, shape.partial
    # Few tokens come one by one: a group would hold rows that nobody asked for.
    group_tokens = 1 if splits > 1 else shape.group_tokens
    rows = group_tokens * per_head
    tile = next(count for count in (6, 5, 4, 3, 2, 1) if rows % count == 0)
    size, scale = shape.block_size, shape.scale
    # Vectors of keys of a block, and of dimensions: as many sums as 16 registers hold with AVX2.
    most_wide = 32 if tile < 4 else 16
    across, width = math.gcd(size, most_wide), math.gcd(head_dim, most_wide)
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
                    queries = T.alloc_buffer((rows * head_dim,), "float32", scope="global")
                    scores = T.alloc_buffer((rows * BLOCK,), "float32", scope="global")
                    sums = T.alloc_buffer((rows * head_dim,), "float32", scope="global")
                    # Of each row: the highest score so far, and the sum of weights.
                    highest = T.alloc_buffer((rows,), "float32", scope="global")
                    weights = T.alloc_buffer((rows,), "float32", scope="global")
                    part = T.alloc_buffer((tile * most_wide,), "float32", scope="local")
                    bounds = T.alloc_buffer((4,), "int32", scope="local")
                    place = T.alloc_buffer((2,), "int32", scope="local")
                    for r in T.serial(rows):
                        place[0] = T.min(band * group_tokens + r // per_head, tokens - 1)
                        highest[r] = T.float32(NEVER)
                        weights[r] = T.float32(0)
                        for step in T.serial(head_dim // width):
                            for o in T.vectorized(width):
                                sums[r * head_dim + step * width + o] = T.float32(0)
                                queries[r * head_dim + step * width + o] = q[
                                    at_q(
                                        place[0],
                                        (head * per_head + r % per_head) * head_dim
                                        + step * width
                                        + o,
                                    )
                                ] * constant(scale)
                    # How many blocks there are for these rows, the first of this group, and
                    # the first behind it.
                    bounds[0] = (past + T.min((band + 1) * group_tokens, tokens) - 1) // size + 1
                    if most > 0:
                        if blocks[band * row_width + head * (1 + most)] >= 0:
                            bounds[0] = T.min(blocks[band * row_width + head * (1 + most)], most)
                    bounds[1] = split * ceil_div(bounds[0], splits)
                    bounds[2] = T.min(bounds[1] + ceil_div(bounds[0], splits), bounds[0])
                    for entry in T.serial(T.max(bounds[2] - bounds[1], 0)):
                        best = T.alloc_buffer((across,), "float32", scope="local")
                        total = T.alloc_buffer((across,), "float32", scope="local")
                        older = T.alloc_buffer((2,), "float32", scope="local")
                        bounds[3] = bounds[1] + entry
                        if most > 0:
                            if blocks[band * row_width + head * (1 + most)] >= 0:
                                bounds[3] = blocks[
                                    band * row_width + head * (1 + most) + 1 + bounds[3]
                                ]
                        # Where the block's keys and values begin.
                        place[0] = caches.key_at(capacity, head, bounds[3] * size, 0)
                        place[1] = caches.value_at(capacity, head, bounds[3] * size, 0)
                        for band_rows in T.serial(rows // tile):
                            for c in T.serial(size // across):
                                for i in T.unroll(tile):
                                    for o in T.vectorized(across):
                                        part[i * most_wide + o] = T.float32(0)
                                for d in T.serial(head_dim):
                                    for i in T.unroll(tile):
                                        for o in T.vectorized(across):
                                            part[i * most_wide + o] += queries[
                                                (band_rows * tile + i) * head_dim + d
                                            ] * T.Cast(
                                                "float32",
                                                key[place[0] + d * BLOCK + c * across + o],
                                            )
                                for i in T.unroll(tile):
                                    for o in T.vectorized(across):
                                        scores[(band_rows * tile + i) * BLOCK + c * across + o] = (
                                            T.Select(
                                                bounds[3] * size + c * across + o
                                                <= past
                                                + band * group_tokens
                                                + (band_rows * tile + i) // per_head,
                                                part[i * most_wide + o],
                                                T.float32(NEVER),
                                            )
                                        )
                        for r in T.serial(rows):
                            for o in T.vectorized(across):
                                best[o] = T.float32(NEVER)
                                total[o] = T.float32(0)
                            for c in T.serial(size // across):
                                for o in T.vectorized(across):
                                    best[o] = T.max(best[o], scores[r * BLOCK + c * across + o])
                            older[0] = highest[r]
                            for o in T.serial(across):
                                older[0] = T.max(older[0], best[o])
                            for c in T.serial(size // across):
                                for o in T.vectorized(across):
                                    # A row that has seen no key yet must not take these for the
                                    # highest.
                                    scores[r * BLOCK + c * across + o] = T.Select(
                                        scores[r * BLOCK + c * across + o] > T.float32(NEVER),
                                        exp(scores[r * BLOCK + c * across + o] - older[0]),
                                        T.float32(0),
                                    )
                                    total[o] += scores[r * BLOCK + c * across + o]
                            older[1] = exp(highest[r] - older[0])
                            highest[r] = older[0]
                            weights[r] = weights[r] * older[1]
                            for o in T.serial(across):
                                weights[r] += total[o]
                            for step in T.serial(head_dim // width):
                                for o in T.vectorized(width):
                                    sums[r * head_dim + step * width + o] = (
                                        sums[r * head_dim + step * width + o] * older[1]
                                    )
                        for band_rows in T.serial(rows // tile):
                            for step in T.serial(head_dim // width):
                                for i in T.unroll(tile):
                                    for o in T.vectorized(width):
                                        part[i * most_wide + o] = sums[
                                            (band_rows * tile + i) * head_dim + step * width + o
                                        ]
                                for k in T.serial(size):
                                    for i in T.unroll(tile):
                                        for o in T.vectorized(width):
                                            part[i * most_wide + o] += scores[
                                                (band_rows * tile + i) * BLOCK + k
                                            ] * T.Cast(
                                                "float32",
                                                value[place[1] + k * head_dim + step * width + o],
                                            )
                                for i in T.unroll(tile):
                                    for o in T.vectorized(width):
                                        sums[
                                            (band_rows * tile + i) * head_dim + step * width + o
                                        ] = part[i * most_wide + o]
                    for r in T.serial(rows):
                        place[0] = band * group_tokens + r // per_head
                        place[1] = (
                            (place[0] * heads + head * per_head + r % per_head) * splits + split
                        ) * partial
                        if place[0] < tokens:
                            if splits > 1:
                                partials[place[1]] = highest[r]
                                partials[place[1] + 1] = weights[r]
                            for step in T.serial(head_dim // width):
                                for o in T.vectorized(width):
                                    if splits > 1:
                                        partials[place[1] + 2 + step * width + o] = sums[
                                            r * head_dim + step * width + o
                                        ]
                                    else:
                                        y[
                                            at_y(
                                                place[0],
                                                (head * per_head + r % per_head) * head_dim
                                                + step * width
                                                + o,
                                            )
                                        ] = sums[r * head_dim + step * width + o] / weights[r]

    return attend
