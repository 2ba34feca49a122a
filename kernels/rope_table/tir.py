"""rope_table as TIR: a group per token, a lane per frequency."""

from __future__ import annotations

from typing import Any

from tvm.script import tirx as T

from arkinfer.tir.halves import constant
from arkinfer.tir.loops import LANES, Loops, ceil_div

# 2 pi in three parts. The first two have 8 and 9 bits, so that their products with the number of
# turns are exact up to 32,767 turns, and an angle of 200,000 loses nothing when it is reduced.
# (Cody and Waite 1980.) Fast cosines of GPUs are accurate near zero only.
_HIGH = 6.28125
_MIDDLE = 507 / 262144
_LOW = 6.283185307179586 - _HIGH - _MIDDLE


def rope_table(
    loops: Loops, head_dim: int, original_max: int = 0, attention_factor: float = 1.0
) -> Any:
    """Cosines and sines of positions past .. past + tokens - 1.

    Arguments: short, long (float32 [head_dim / 2]), y (float32 [tokens, head_dim]), tokens,
    past, total.
    """
    half = head_dim // 2
    steps = ceil_div(half, LANES)

    @T.prim_func(s_tir=True)
    def rope_table(
        p_short: T.handle,
        p_long: T.handle,
        p_y: T.handle,
        tokens: T.int32,
        past: T.int32,
        total: T.int32,
    ):
        short = T.match_buffer(p_short, (half,), "float32")
        long = T.match_buffer(p_long, (half,), "float32")
        y = T.match_buffer(p_y, (T.int32(),), "float32")
        for t in loops.groups(tokens):
            with T.sblock("group"):
                T.reads()
                T.writes()
                for lane in loops.lanes():
                    angle = T.alloc_buffer((1,), "float32", scope="local")
                    turns = T.alloc_buffer((1,), "float32", scope="local")
                    for step in T.serial(steps):
                        if step * LANES + lane < half:
                            angle[0] = short[step * LANES + lane]
                            if T.bool(original_max > 0) and total > original_max:
                                angle[0] = long[step * LANES + lane]
                            angle[0] = T.Cast("float32", past + t) * angle[0]
                            turns[0] = T.floor(
                                angle[0] * constant(1 / 6.283185307179586) + T.float32(0.5)
                            )
                            angle[0] = angle[0] - turns[0] * constant(_HIGH)
                            angle[0] = angle[0] - turns[0] * constant(_MIDDLE)
                            angle[0] = angle[0] - turns[0] * constant(_LOW)
                            place = t * head_dim + step * LANES + lane
                            y[place] = T.cos(angle[0]) * constant(attention_factor)
                            y[place + half] = T.sin(angle[0]) * constant(attention_factor)

    return rope_table
