"""What splits of attention found, joined, as TIR."""

from __future__ import annotations

from typing import Any

from tvm.script import tirx as T

from arkinfer.kernels.attention.tir_shape import NEVER, Shape
from arkinfer.tir.loops import LANES, Loops, Rows, ceil_div


def combine(loops: Loops, shape: Shape, y: Rows) -> Any:
    """Join what the splits of ``attend`` left: a group per token and head.

    Arguments: partials, y (float32), tokens.
    """
    heads, splits, partial = shape.heads, shape.splits, shape.partial
    head_dim = shape.caches.head_dim
    at_y = y.at

    @T.prim_func(s_tir=True)
    def combine(p_partials: T.handle, p_y: T.handle, tokens: T.int32):
        partials = T.match_buffer(p_partials, (T.int32(),), "float32")
        y = T.match_buffer(p_y, (T.int32(),), "float32")
        for t in loops.groups(tokens, "x"):
            for head in loops.groups(heads, "y"):
                with T.sblock("group"):
                    T.reads()
                    T.writes()
                    for lane in loops.lanes():
                        best = T.alloc_buffer((1,), "float32", scope="local")
                        sums = T.alloc_buffer((2,), "float32", scope="local")
                        share = T.alloc_buffer((1,), "float32", scope="local")
                        first = T.alloc_buffer((1,), "int32", scope="local")
                        first[0] = (t * heads + head) * splits * partial
                        best[0] = T.float32(NEVER)
                        for split in T.serial(splits):
                            best[0] = T.max(best[0], partials[first[0] + split * partial])
                        for step in T.serial(ceil_div(head_dim, LANES)):
                            if step * LANES + lane < head_dim:
                                sums[0] = T.float32(0)
                                sums[1] = T.float32(0)
                                for split in T.serial(splits):
                                    share[0] = T.exp(partials[first[0] + split * partial] - best[0])
                                    sums[0] += share[0] * partials[first[0] + split * partial + 1]
                                    sums[1] += (
                                        share[0]
                                        * partials[
                                            first[0] + split * partial + 2 + step * LANES + lane
                                        ]
                                    )
                                y[at_y(t, head * head_dim + step * LANES + lane)] = (
                                    sums[1] / sums[0]
                                )

    return combine
