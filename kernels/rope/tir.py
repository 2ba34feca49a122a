"""rope as TIR: a group per token, a lane per pair of dimensions."""

from __future__ import annotations

from typing import Any

from tvm.script import tirx as T

from arkinfer.tir.loops import LANES, Loops, Rows, ceil_div


def rope(loops: Loops, x: Rows, head_dim: int) -> Any:
    """Rotate every head of ``x`` in place.

    Arguments: x (float32), table (float32 [tokens, head_dim], cosines then sines), tokens.
    """
    at_x = x.at
    half = head_dim // 2
    pairs = x.columns // 2
    steps = ceil_div(pairs, LANES)

    @T.prim_func(s_tir=True)
    def rope(p_x: T.handle, p_table: T.handle, tokens: T.int32):
        x = T.match_buffer(p_x, (T.int32(),), "float32")
        table = T.match_buffer(p_table, (T.int32(),), "float32")
        for t in loops.groups(tokens):
            with T.sblock("group"):
                T.reads()
                T.writes()
                for lane in loops.lanes():
                    first = T.alloc_buffer((1,), "float32", scope="local")
                    second = T.alloc_buffer((1,), "float32", scope="local")
                    cos = T.alloc_buffer((1,), "float32", scope="local")
                    sin = T.alloc_buffer((1,), "float32", scope="local")
                    column = T.alloc_buffer((1,), "int32", scope="local")
                    for step in T.serial(steps):
                        if step * LANES + lane < pairs:
                            column[0] = (step * LANES + lane) // half * head_dim + (
                                step * LANES + lane
                            ) % half
                            cos[0] = table[t * head_dim + column[0] % head_dim]
                            sin[0] = table[t * head_dim + half + column[0] % head_dim]
                            first[0] = x[at_x(t, column[0])]
                            second[0] = x[at_x(t, column[0] + half)]
                            x[at_x(t, column[0])] = first[0] * cos[0] - second[0] * sin[0]
                            x[at_x(t, column[0] + half)] = second[0] * cos[0] + first[0] * sin[0]

    return rope
