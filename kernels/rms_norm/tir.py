"""rms_norm as TIR: a group per token."""

from __future__ import annotations

from typing import Any

from tvm.script import tirx as T

from arkinfer.tir.halves import constant
from arkinfer.tir.loops import LANES, Loops, Rows, ceil_div


def rms_norm(loops: Loops, x: Rows, y: Rows, epsilon: float) -> Any:
    """``y[t] = x[t] / sqrt(mean(x[t]**2) + epsilon) * weight``.

    Arguments: x, weight, y (float32), tokens.
    """
    columns = x.columns
    at_x, at_y = x.at, y.at
    steps = ceil_div(columns, LANES)

    @T.prim_func(s_tir=True)
    def rms_norm(p_x: T.handle, p_weight: T.handle, p_y: T.handle, tokens: T.int32):
        x = T.match_buffer(p_x, (T.int32(),), "float32")
        weight = T.match_buffer(p_weight, (columns,), "float32")
        y = T.match_buffer(p_y, (T.int32(),), "float32")
        for t in loops.groups(tokens):
            with T.sblock("group"):
                T.reads()
                T.writes()
                squares = T.alloc_buffer((loops.partials,), "float32", scope=loops.shared)
                for lane in loops.lanes():
                    own = T.alloc_buffer((1,), "float32", scope="local")
                    own[0] = T.float32(0)
                    for step in T.serial(steps):
                        if step * LANES + lane < columns:
                            value = x[at_x(t, step * LANES + lane)]
                            own[0] += value * value
                    own[0] = loops.total(own[0])
                    if loops.leads(lane):
                        squares[loops.partial(lane)] = own[0]
                for lane in loops.lanes():
                    total = T.alloc_buffer((1,), "float32", scope="local")
                    total[0] = T.float32(0)
                    for other in T.serial(loops.partials):
                        total[0] += squares[other]
                    total[0] = T.float32(1) / T.sqrt(
                        total[0] * constant(1 / columns) + constant(epsilon)
                    )
                    for step in T.serial(steps):
                        if step * LANES + lane < columns:
                            y[at_y(t, step * LANES + lane)] = (
                                x[at_x(t, step * LANES + lane)]
                                * total[0]
                                * weight[step * LANES + lane]
                            )

    return rms_norm
