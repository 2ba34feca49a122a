"""cache_append as TIR for CPUs: a head's values in vectors, its keys one by one."""

from __future__ import annotations

import math
from typing import Any

from tvm.script import tirx as T

from arkinfer.tir.caches import BLOCK, Caches
from arkinfer.tir.loops import Loops, Rows

_WIDTH = 16


def cache_append(loops: Loops, caches: Caches, k: Rows, v: Rows) -> Any:
    """See :func:`arkinfer.kernels.cache_append.tir.cache_append`."""
    at_k, at_v, element = k.at, v.at, caches.element
    head_dim, kv_heads = caches.head_dim, caches.kv_heads
    width = math.gcd(head_dim, _WIDTH)

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
        # Tokens inside: neighbours write to the same lines of the keys.
        for head in loops.groups(kv_heads):
            with T.sblock("head"):
                T.reads()
                T.writes()
                for t in T.serial(tokens):
                    place = T.alloc_buffer((2,), "int32", scope="local")
                    part = T.alloc_buffer((width,), element, scope="local")
                    place[0] = caches.key_at(capacity, head, past + t, 0)
                    place[1] = caches.value_at(capacity, head, past + t, 0)
                    for step in T.serial(head_dim // width):
                        for o in T.vectorized(width):
                            value[place[1] + step * width + o] = caches.rounded(
                                v[at_v(t, head * head_dim + step * width + o)]
                            )
                            part[o] = caches.rounded(k[at_k(t, head * head_dim + step * width + o)])
                        for o in T.serial(width):
                            key[place[0] + (step * width + o) * BLOCK] = part[o]

    return cache_append
