"""cache_append as TIR: a group per token and key-value head, a lane per pair of dimensions."""

from __future__ import annotations

from typing import Any

from tvm.script import tirx as T

from arkinfer.tir.caches import Caches
from arkinfer.tir.loops import LANES, Loops, Rows, ceil_div


def cache_append(loops: Loops, caches: Caches, k: Rows, v: Rows) -> Any:
    """Write new keys and values at positions past .. past + tokens - 1.

    Arguments: k, v (float32), key, value (see :class:`Caches`), tokens, past, capacity.
    """
    at_k, at_v, element = k.at, v.at, caches.element
    head_dim, pairs, kv_heads = caches.head_dim, caches.pairs, caches.kv_heads

    @T.prim_func(s_tir=True)
    def cache_append(
        p_k: T.handle,
        p_v: T.handle,
        p_key: T.handle,
        p_value: T.handle,
        tokens: T.int32,
        past: T.int32,
        capacity: T.int32,
    ):
        k = T.match_buffer(p_k, (T.int32(),), "float32")
        v = T.match_buffer(p_v, (T.int32(),), "float32")
        key = T.match_buffer(p_key, (T.int32(),), element)
        value = T.match_buffer(p_value, (T.int32(),), element)
        for t in loops.groups(tokens, "x"):
            for head in loops.groups(kv_heads, "y"):
                with T.sblock("group"):
                    T.reads()
                    T.writes()
                    for lane in loops.lanes():
                        for step in T.serial(ceil_div(pairs, LANES)):
                            if step * LANES + lane < pairs:
                                caches.store(
                                    key,
                                    caches.key_at(capacity, head, past + t, step * LANES + lane),
                                    True,
                                    k[at_k(t, head * head_dim + 2 * (step * LANES + lane))],
                                    k[at_k(t, head * head_dim + 2 * (step * LANES + lane) + 1)],
                                )
                                caches.store(
                                    value,
                                    caches.value_at(capacity, head, past + t, step * LANES + lane),
                                    False,
                                    v[at_v(t, head * head_dim + 2 * (step * LANES + lane))],
                                    v[at_v(t, head * head_dim + 2 * (step * LANES + lane) + 1)],
                                )

    return cache_append
