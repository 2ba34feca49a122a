"""rms_norm as TIR for CPUs: the columns of a token in vectors."""

from __future__ import annotations

from typing import Any

from tvm.script import tirx as T

from arkinfer.tir.halves import constant
from arkinfer.tir.loops import Loops, Rows

_WIDTH = 32  # sums that run beside each other


def rms_norm(loops: Loops, x: Rows, y: Rows, epsilon: float) -> Any:
    """See :func:`arkinfer.kernels.rms_norm.tir.rms_norm`."""
    columns = x.columns
    whole = columns // _WIDTH
    at_x, at_y = x.at, y.at

    @T.prim_func(s_tir=True)
    def rms_norm(p_x: T.handle, p_weight: T.handle, p_y: T.handle, tokens: T.int32):
        x = T.match_buffer(p_x, (T.int32(),), "float32")
        weight = T.match_buffer(p_weight, (columns,), "float32")
        y = T.match_buffer(p_y, (T.int32(),), "float32")
        for t in loops.groups(tokens):
            with T.sblock("token"):
                T.reads()
                T.writes()
                squares = T.alloc_buffer((_WIDTH,), "float32", scope="local")
                total = T.alloc_buffer((1,), "float32", scope="local")
                for o in T.vectorized(_WIDTH):
                    squares[o] = T.float32(0)
                for step in T.serial(whole):
                    for o in T.vectorized(_WIDTH):
                        squares[o] += x[at_x(t, step * _WIDTH + o)] * x[at_x(t, step * _WIDTH + o)]
                total[0] = T.float32(0)
                for o in T.serial(_WIDTH):
                    total[0] += squares[o]
                for o in T.serial(columns - whole * _WIDTH):
                    total[0] += x[at_x(t, whole * _WIDTH + o)] * x[at_x(t, whole * _WIDTH + o)]
                total[0] = T.float32(1) / T.sqrt(
                    total[0] * constant(1 / columns) + constant(epsilon)
                )
                for step in T.serial(whole):
                    for o in T.vectorized(_WIDTH):
                        y[at_y(t, step * _WIDTH + o)] = (
                            x[at_x(t, step * _WIDTH + o)] * total[0] * weight[step * _WIDTH + o]
                        )
                for o in T.serial(columns - whole * _WIDTH):
                    y[at_y(t, whole * _WIDTH + o)] = (
                        x[at_x(t, whole * _WIDTH + o)] * total[0] * weight[whole * _WIDTH + o]
                    )

    return rms_norm
