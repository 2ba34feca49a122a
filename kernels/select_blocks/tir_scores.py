"""Scores of windows as TIR: what they are normalised with, and their sums over a group's heads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tvm.script import tirx as T

from arkinfer.config import SparseConfig
from arkinfer.kernels.compress_keys.tir import window_capacity, windows_before
from arkinfer.tir.caches import Caches
from arkinfer.tir.halves import constant
from arkinfer.tir.loops import LANES, Loops, Rows, ceil_div

NEVER = -1e30
"""The logarithm of a score of zero."""
COARSER = 4
"""Coarse windows are that many times as long and as far apart."""


@dataclass(frozen=True)
class Selection:
    """What a selection is made for: compressed keys, query heads, their scale, and the rule."""

    caches: Caches
    heads: int
    scale: float
    sparse: SparseConfig

    @property
    def per_head(self) -> int:
        """Query heads of a key-value head."""
        return self.heads // self.caches.kv_heads

    @property
    def most(self) -> int:
        """Blocks that a row can hold."""
        return self.sparse.max_blocks

    @property
    def exact(self) -> bool:
        """Whether scores are normalised over the fine windows themselves."""
        return self.sparse.lse == "exact"


def normalizers(loops: Loops, selection: Selection, q: Rows) -> Any:
    """A group per token and key-value head; a lane takes every 64th window.

    Arguments: q (float32), basis (compressed keys, coarse or, where exact, fine), lse (float32
    [tokens, heads]), tokens, past, capacity.
    """
    caches, per_head, sparse = selection.caches, selection.per_head, selection.sparse
    head_dim, pairs, heads = caches.head_dim, caches.pairs, selection.heads
    coarser = 1 if selection.exact else COARSER
    window, stride = sparse.kernel_size * coarser, sparse.kernel_stride * coarser
    scale, element, at_q = selection.scale, caches.element, q.at

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
                    queries = T.alloc_buffer((per_head * head_dim,), "float32", scope=loops.shared)
                    tops = T.alloc_buffer((per_head * LANES,), "float32", scope=loops.shared)
                    sums = T.alloc_buffer((per_head * LANES,), "float32", scope=loops.shared)
                    for lane in loops.lanes():
                        for step in T.serial(ceil_div(per_head * head_dim, LANES)):
                            if step * LANES + lane < per_head * head_dim:
                                queries[step * LANES + lane] = q[
                                    at_q(t, head * per_head * head_dim + step * LANES + lane)
                                ] * constant(scale)
                    for lane in loops.lanes():
                        score = T.alloc_buffer((per_head,), "float32", scope="local")
                        top = T.alloc_buffer((per_head,), "float32", scope="local")
                        total = T.alloc_buffer((per_head,), "float32", scope="local")
                        both = T.alloc_buffer((2,), "float32", scope="local")
                        best = T.alloc_buffer((1,), "float32", scope="local")
                        for g in T.unroll(per_head):
                            top[g] = T.float32(NEVER)
                            total[g] = T.float32(0)
                        for step in T.serial(
                            ceil_div(windows_before(past + t + 1, window, stride), LANES)
                        ):
                            if step * LANES + lane < windows_before(past + t + 1, window, stride):
                                for g in T.unroll(per_head):
                                    score[g] = T.float32(0)
                                for p in T.serial(pairs):
                                    both[0] = caches.load(
                                        basis,
                                        caches.key_at(
                                            window_capacity(capacity, stride),
                                            head,
                                            step * LANES + lane,
                                            p,
                                        ),
                                        True,
                                    )[0]
                                    both[1] = caches.load(
                                        basis,
                                        caches.key_at(
                                            window_capacity(capacity, stride),
                                            head,
                                            step * LANES + lane,
                                            p,
                                        ),
                                        True,
                                    )[1]
                                    for g in T.unroll(per_head):
                                        score[g] += (
                                            queries[g * head_dim + 2 * p] * both[0]
                                            + queries[g * head_dim + 2 * p + 1] * both[1]
                                        )
                                for g in T.unroll(per_head):
                                    best[0] = T.max(top[g], score[g])
                                    total[g] = total[g] * T.exp(top[g] - best[0]) + T.exp(
                                        score[g] - best[0]
                                    )
                                    top[g] = best[0]
                        for g in T.unroll(per_head):
                            tops[g * LANES + lane] = top[g]
                            sums[g * LANES + lane] = total[g]
                    for lane in loops.lanes():
                        best = T.alloc_buffer((1,), "float32", scope="local")
                        total = T.alloc_buffer((1,), "float32", scope="local")
                        for step in T.serial(ceil_div(per_head, LANES)):
                            if step * LANES + lane < per_head:
                                best[0] = T.float32(NEVER)
                                total[0] = T.float32(0)
                                for other in T.serial(LANES):
                                    best[0] = T.max(
                                        best[0], tops[(step * LANES + lane) * LANES + other]
                                    )
                                for other in T.serial(LANES):
                                    total[0] += sums[(step * LANES + lane) * LANES + other] * T.exp(
                                        tops[(step * LANES + lane) * LANES + other] - best[0]
                                    )
                                lse[t * heads + head * per_head + step * LANES + lane] = best[
                                    0
                                ] + T.log(total[0])

    return normalizers


def window_scores(loops: Loops, selection: Selection, q: Rows) -> Any:
    """A group per 64 windows, token and key-value head; a lane per window.

    Arguments: q (float32), fine (compressed keys), lse (see :func:`normalizers`), windows (float32
    [tokens, kv_heads, window_capacity]), tokens, past, capacity.
    """
    caches, per_head, sparse = selection.caches, selection.per_head, selection.sparse
    head_dim, pairs, heads, kv_heads = (
        caches.head_dim,
        caches.pairs,
        selection.heads,
        caches.kv_heads,
    )
    window, stride = sparse.kernel_size, sparse.kernel_stride
    scale, element, at_q = selection.scale, caches.element, q.at
    # Without a coarse window there is nothing to normalise by, and all scores are zero.
    least = 1 if selection.exact else COARSER * window

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
        for part in loops.groups((past + tokens) // stride // LANES + 1, "x"):
            for pair in loops.groups(tokens * kv_heads, "y"):
                with T.sblock("group"):
                    T.reads()
                    T.writes()
                    t = pair // kv_heads
                    head = pair % kv_heads
                    queries = T.alloc_buffer((per_head * head_dim,), "float32", scope=loops.shared)
                    for lane in loops.lanes():
                        for step in T.serial(ceil_div(per_head * head_dim, LANES)):
                            if step * LANES + lane < per_head * head_dim:
                                queries[step * LANES + lane] = q[
                                    at_q(t, head * per_head * head_dim + step * LANES + lane)
                                ] * constant(scale)
                    for lane in loops.lanes():
                        score = T.alloc_buffer((per_head,), "float32", scope="local")
                        both = T.alloc_buffer((2,), "float32", scope="local")
                        best = T.alloc_buffer((1,), "float32", scope="local")
                        total = T.alloc_buffer((1,), "float32", scope="local")
                        if part * LANES + lane < windows_before(past + t + 1, window, stride):
                            for g in T.unroll(per_head):
                                score[g] = T.float32(0)
                            for p in T.serial(pairs):
                                both[0] = caches.load(
                                    fine,
                                    caches.key_at(
                                        window_capacity(capacity, stride),
                                        head,
                                        part * LANES + lane,
                                        p,
                                    ),
                                    True,
                                )[0]
                                both[1] = caches.load(
                                    fine,
                                    caches.key_at(
                                        window_capacity(capacity, stride),
                                        head,
                                        part * LANES + lane,
                                        p,
                                    ),
                                    True,
                                )[1]
                                for g in T.unroll(per_head):
                                    score[g] += (
                                        queries[g * head_dim + 2 * p] * both[0]
                                        + queries[g * head_dim + 2 * p + 1] * both[1]
                                    )
                            best[0] = T.float32(NEVER)
                            for g in T.unroll(per_head):
                                score[g] = score[g] - lse[t * heads + head * per_head + g]
                                best[0] = T.max(best[0], score[g])
                            total[0] = T.float32(0)
                            for g in T.unroll(per_head):
                                total[0] += T.exp(score[g] - best[0])
                            total[0] = best[0] + T.log(total[0])
                            if past + t + 1 < least:
                                total[0] = T.float32(NEVER)
                            windows[
                                (t * kv_heads + head) * window_capacity(capacity, stride)
                                + part * LANES
                                + lane
                            ] = total[0]

    return window_scores
