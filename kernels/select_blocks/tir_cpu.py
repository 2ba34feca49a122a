"""The scores of select_blocks as TIR for CPUs: windows of a block of the cache in vectors."""

from __future__ import annotations

import math
from typing import Any

from tvm.script import tirx as T

from arkinfer.kernels.compress_keys.tir import window_capacity, windows_before
from arkinfer.kernels.select_blocks.tir_scores import COARSER, NEVER, Selection
from arkinfer.tir.caches import BLOCK
from arkinfer.tir.functions import exp
from arkinfer.tir.halves import constant
from arkinfer.tir.loops import Loops, Rows, ceil_div

_WIDTH = 16


def _tile(per_head: int) -> int:
    """Query heads whose scores stay in registers."""
    return next(count for count in (4, 3, 2, 1) if per_head % count == 0)


def normalizers(loops: Loops, selection: Selection, q: Rows) -> Any:
    """See :func:`arkinfer.kernels.select_blocks.tir_scores.normalizers`."""
    caches, per_head, sparse = selection.caches, selection.per_head, selection.sparse
    head_dim, heads = caches.head_dim, selection.heads
    coarser = 1 if selection.exact else COARSER
    window, stride = sparse.kernel_size * coarser, sparse.kernel_stride * coarser
    scale, element, at_q = selection.scale, caches.element, q.at
    tile, width = _tile(per_head), math.gcd(head_dim, _WIDTH)

    @T.prim_func(s_tir=True)
    def normalizers(
        p_q: T.handle,
        p_basis: T.handle,
        p_lse: T.handle,
        tokens: T.int32,
        past: T.int32,
        capacity: T.int32,
    ):
        q = T.match_buffer(p_q, (T.int32(),), "float32")
        basis = T.match_buffer(p_basis, (T.int32(),), element)
        lse = T.match_buffer(p_lse, (T.int32(),), "float32")
        for t in loops.groups(tokens, "x"):
            for head in loops.groups(caches.kv_heads, "y"):
                with T.sblock("group"):
                    T.reads()
                    T.writes()
                    queries = T.alloc_buffer((per_head * head_dim,), "float32", scope="global")
                    # Of each query head: the highest score so far in each lane, and the sum there.
                    tops = T.alloc_buffer((per_head * _WIDTH,), "float32", scope="global")
                    sums = T.alloc_buffer((per_head * _WIDTH,), "float32", scope="global")
                    part = T.alloc_buffer((tile * _WIDTH,), "float32", scope="local")
                    best = T.alloc_buffer((_WIDTH,), "float32", scope="local")
                    total = T.alloc_buffer((2,), "float32", scope="local")
                    place = T.alloc_buffer((2,), "int32", scope="local")
                    for g in T.serial(per_head):
                        for step in T.serial(head_dim // width):
                            for o in T.vectorized(width):
                                queries[g * head_dim + step * width + o] = q[
                                    at_q(t, (head * per_head + g) * head_dim + step * width + o)
                                ] * constant(scale)
                        for o in T.vectorized(_WIDTH):
                            tops[g * _WIDTH + o] = T.float32(NEVER)
                            sums[g * _WIDTH + o] = T.float32(0)
                    place[0] = windows_before(past + t + 1, window, stride)
                    for c in T.serial(ceil_div(place[0], _WIDTH)):
                        place[1] = caches.key_at(
                            window_capacity(capacity, stride), head, c * _WIDTH, 0
                        )
                        for band in T.serial(per_head // tile):
                            for i in T.unroll(tile):
                                for o in T.vectorized(_WIDTH):
                                    part[i * _WIDTH + o] = T.float32(0)
                            for d in T.serial(head_dim):
                                for i in T.unroll(tile):
                                    for o in T.vectorized(_WIDTH):
                                        part[i * _WIDTH + o] += queries[
                                            (band * tile + i) * head_dim + d
                                        ] * T.Cast("float32", basis[place[1] + d * BLOCK + o])
                            for i in T.unroll(tile):
                                for o in T.vectorized(_WIDTH):
                                    part[i * _WIDTH + o] = T.Select(
                                        c * _WIDTH + o < place[0],
                                        part[i * _WIDTH + o],
                                        T.float32(NEVER),
                                    )
                                    best[o] = T.max(
                                        tops[(band * tile + i) * _WIDTH + o], part[i * _WIDTH + o]
                                    )
                                    # A lane that has seen no window yet keeps a sum of nothing.
                                    sums[(band * tile + i) * _WIDTH + o] = sums[
                                        (band * tile + i) * _WIDTH + o
                                    ] * exp(
                                        tops[(band * tile + i) * _WIDTH + o] - best[o]
                                    ) + T.Select(
                                        part[i * _WIDTH + o] > T.float32(NEVER),
                                        exp(part[i * _WIDTH + o] - best[o]),
                                        T.float32(0),
                                    )
                                    tops[(band * tile + i) * _WIDTH + o] = best[o]
                    for g in T.serial(per_head):
                        total[0] = T.float32(NEVER)
                        total[1] = T.float32(0)
                        for o in T.serial(_WIDTH):
                            total[0] = T.max(total[0], tops[g * _WIDTH + o])
                        for o in T.serial(_WIDTH):
                            total[1] += sums[g * _WIDTH + o] * exp(tops[g * _WIDTH + o] - total[0])
                        lse[t * heads + head * per_head + g] = total[0] + T.log(total[1])

    return normalizers


def window_scores(loops: Loops, selection: Selection, q: Rows) -> Any:
    """See :func:`arkinfer.kernels.select_blocks.tir_scores.window_scores`."""
    caches, per_head, sparse = selection.caches, selection.per_head, selection.sparse
    head_dim, heads, kv_heads = caches.head_dim, selection.heads, caches.kv_heads
    window, stride = sparse.kernel_size, sparse.kernel_stride
    scale, element, at_q = selection.scale, caches.element, q.at
    # Without a coarse window there is nothing to normalise by, and all scores are zero.
    least = 1 if selection.exact else COARSER * window
    tile, width = _tile(per_head), math.gcd(head_dim, _WIDTH)

    @T.prim_func(s_tir=True)
    def window_scores(
        p_q: T.handle,
        p_fine: T.handle,
        p_lse: T.handle,
        p_windows: T.handle,
        tokens: T.int32,
        past: T.int32,
        capacity: T.int32,
    ):
        q = T.match_buffer(p_q, (T.int32(),), "float32")
        fine = T.match_buffer(p_fine, (T.int32(),), element)
        lse = T.match_buffer(p_lse, (T.int32(),), "float32")
        windows = T.match_buffer(p_windows, (T.int32(),), "float32")
        for block in loops.groups((past + tokens) // stride // BLOCK + 1, "x"):
            for pair in loops.groups(tokens * kv_heads, "y"):
                with T.sblock("group"):
                    T.reads()
                    T.writes()
                    t = pair // kv_heads
                    head = pair % kv_heads
                    queries = T.alloc_buffer((per_head * head_dim,), "float32", scope="global")
                    scores = T.alloc_buffer((per_head * _WIDTH,), "float32", scope="global")
                    part = T.alloc_buffer((tile * _WIDTH,), "float32", scope="local")
                    best = T.alloc_buffer((_WIDTH,), "float32", scope="local")
                    total = T.alloc_buffer((_WIDTH,), "float32", scope="local")
                    place = T.alloc_buffer((3,), "int32", scope="local")
                    for g in T.serial(per_head):
                        for step in T.serial(head_dim // width):
                            for o in T.vectorized(width):
                                queries[g * head_dim + step * width + o] = q[
                                    at_q(t, (head * per_head + g) * head_dim + step * width + o)
                                ] * constant(scale)
                    place[0] = windows_before(past + t + 1, window, stride)
                    place[1] = caches.key_at(
                        window_capacity(capacity, stride), head, block * BLOCK, 0
                    )
                    place[2] = (t * kv_heads + head) * window_capacity(
                        capacity, stride
                    ) + block * BLOCK
                    for c in T.serial(
                        T.min(ceil_div(T.max(place[0] - block * BLOCK, 0), _WIDTH), BLOCK // _WIDTH)
                    ):
                        for band in T.serial(per_head // tile):
                            for i in T.unroll(tile):
                                for o in T.vectorized(_WIDTH):
                                    part[i * _WIDTH + o] = T.float32(0)
                            for d in T.serial(head_dim):
                                for i in T.unroll(tile):
                                    for o in T.vectorized(_WIDTH):
                                        part[i * _WIDTH + o] += queries[
                                            (band * tile + i) * head_dim + d
                                        ] * T.Cast(
                                            "float32", fine[place[1] + d * BLOCK + c * _WIDTH + o]
                                        )
                            for i in T.unroll(tile):
                                for o in T.vectorized(_WIDTH):
                                    scores[(band * tile + i) * _WIDTH + o] = (
                                        part[i * _WIDTH + o]
                                        - lse[t * heads + head * per_head + band * tile + i]
                                    )
                        for o in T.vectorized(_WIDTH):
                            best[o] = T.float32(NEVER)
                            total[o] = T.float32(0)
                        for g in T.serial(per_head):
                            for o in T.vectorized(_WIDTH):
                                best[o] = T.max(best[o], scores[g * _WIDTH + o])
                        for g in T.serial(per_head):
                            for o in T.vectorized(_WIDTH):
                                total[o] += exp(scores[g * _WIDTH + o] - best[o])
                        for o in T.serial(_WIDTH):
                            if block * BLOCK + c * _WIDTH + o < place[0]:
                                windows[place[2] + c * _WIDTH + o] = best[o] + T.log(total[o])
                                if past + t + 1 < least:
                                    windows[place[2] + c * _WIDTH + o] = T.float32(NEVER)

    return window_scores
