"""rope and cache_append at once: a group per token and head, a lane per pair of dimensions."""

from __future__ import annotations

from typing import Any

from tvm.script import tirx as T

from arkinfer.tir.caches import Caches
from arkinfer.tir.loops import LANES, Loops, Rows, ceil_div


def rotate_and_append(loops: Loops, caches: Caches, q: Rows, k: Rows, v: Rows) -> Any:
    """Rotate queries in place, and write rotated keys and values at positions past and behind.

    Arguments: q, k, v (float32; k stays as it is), table (float32 [tokens, head_dim], cosines then
    sines), key, value (see :class:`Caches`), tokens, past, capacity.
    """
    at_q, at_k, at_v, element = q.at, k.at, v.at, caches.element
    head_dim, half, kv_heads = caches.head_dim, caches.pairs, caches.kv_heads
    heads = q.columns // head_dim

    @T.prim_func(s_tir=True)
    def rotate_and_append(
        p_q: T.handle,
        p_k: T.handle,
        p_v: T.handle,
        p_table: T.handle,
        p_key: T.handle,
        p_value: T.handle,
        tokens: T.int32,
        past: T.int32,
        capacity: T.int32,
    ):
        q = T.match_buffer(p_q, (T.int32(),), "float32")
        k = T.match_buffer(p_k, (T.int32(),), "float32")
        v = T.match_buffer(p_v, (T.int32(),), "float32")
        table = T.match_buffer(p_table, (T.int32(),), "float32")
        key = T.match_buffer(p_key, (T.int32(),), element)
        value = T.match_buffer(p_value, (T.int32(),), element)
        for t in loops.groups(tokens, "x"):
            for head in loops.groups(heads + kv_heads, "y"):
                with T.sblock("group"):
                    T.reads()
                    T.writes()
                    for lane in loops.lanes():
                        pair = T.alloc_buffer((2,), "float32", scope="local")
                        first = T.alloc_buffer((1,), "int32", scope="local")
                        for step in T.serial(ceil_div(half, LANES)):
                            if step * LANES + lane < half:
                                if head < heads:
                                    # Dimensions i and i + half.
                                    first[0] = head * head_dim + step * LANES + lane
                                    pair[0] = q[at_q(t, first[0])]
                                    pair[1] = q[at_q(t, first[0] + half)]
                                    q[at_q(t, first[0])] = (
                                        pair[0] * table[t * head_dim + step * LANES + lane]
                                        - pair[1] * table[t * head_dim + half + step * LANES + lane]
                                    )
                                    q[at_q(t, first[0] + half)] = (
                                        pair[1] * table[t * head_dim + step * LANES + lane]
                                        + pair[0] * table[t * head_dim + half + step * LANES + lane]
                                    )
                                else:
                                    # Dimensions 2i and 2i + 1, which lie together in the cache.
                                    for part in T.unroll(2):
                                        first[0] = 2 * (step * LANES + lane) + part
                                        pair[part] = (
                                            k[
                                                at_k(
                                                    t,
                                                    (head - heads) * head_dim
                                                    + (first[0] + half) % head_dim,
                                                )
                                            ]
                                            * table[t * head_dim + half + first[0] % half]
                                        )
                                        if first[0] < half:
                                            pair[part] = T.float32(0) - pair[part]
                                        pair[part] += (
                                            k[at_k(t, (head - heads) * head_dim + first[0])]
                                            * table[t * head_dim + first[0] % half]
                                        )
                                    caches.store(
                                        key,
                                        caches.key_at(
                                            capacity, head - heads, past + t, step * LANES + lane
                                        ),
                                        True,
                                        pair[0],
                                        pair[1],
                                    )
                                    first[0] = (head - heads) * head_dim
                                    first[0] += 2 * (step * LANES + lane)
                                    caches.store(
                                        value,
                                        caches.value_at(
                                            capacity, head - heads, past + t, step * LANES + lane
                                        ),
                                        False,
                                        v[at_v(t, first[0])],
                                        v[at_v(t, first[0] + 1)],
                                    )

    return rotate_and_append
