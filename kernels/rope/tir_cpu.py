"""rope as TIR for CPUs: pairs of dimensions in vectors."""

from __future__ import annotations

import math
from typing import Any

from tvm.script import tirx as T

from arkinfer.tir.loops import Loops, Rows

_WIDTH = 16


def rope(loops: Loops, x: Rows, head_dim: int) -> Any:
    """See :func:`arkinfer.kernels.rope.tir.rope`."""
    at_x = x.at
    half = head_dim // 2
    heads = x.columns // head_dim
    width = math.gcd(half, _WIDTH)

    @T.prim_func(s_tir=True)
    def rope(p_x: T.handle, p_table: T.handle, tokens: T.int32):
        x = T.match_buffer(p_x, (T.int32(),), "float32")
        table = T.match_buffer(p_table, (T.int32(),), "float32")
        for t in loops.groups(tokens):
            with T.sblock("token"):
                T.reads()
                T.writes()
                cos = T.alloc_buffer((width,), "float32", scope="local")
                sin = T.alloc_buffer((width,), "float32", scope="local")
                first = T.alloc_buffer((width,), "float32", scope="local")
                second = T.alloc_buffer((width,), "float32", scope="local")
                for step in T.serial(half // width):
                    for o in T.vectorized(width):
                        cos[o] = table[t * head_dim + step * width + o]
                        sin[o] = table[t * head_dim + half + step * width + o]
                    for head in T.serial(heads):
                        for o in T.vectorized(width):
                            first[o] = x[at_x(t, head * head_dim + step * width + o)]
                            second[o] = x[at_x(t, head * head_dim + half + step * width + o)]
                        for o in T.vectorized(width):
                            x[at_x(t, head * head_dim + step * width + o)] = (
                                first[o] * cos[o] - second[o] * sin[o]
                            )
                            x[at_x(t, head * head_dim + half + step * width + o)] = (
                                second[o] * cos[o] + first[o] * sin[o]
                            )

    return rope
