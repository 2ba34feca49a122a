"""swiglu as TIR: 64 columns of a token per group."""

from __future__ import annotations

from typing import Any

from tvm.script import tirx as T

from arkinfer.tir.loops import LANES, Loops, Rows, ceil_div


def swiglu(loops: Loops, gate: Rows, up: Rows, y: Rows) -> Any:
    """``y = gate / (1 + exp(-gate)) * up``.

    Arguments: gate, up, y (float32), tokens.
    """
    at_gate, at_up, at_y = gate.at, up.at, y.at
    columns = gate.columns

    @T.prim_func(s_tir=True)
    def swiglu(p_gate: T.handle, p_up: T.handle, p_y: T.handle, tokens: T.int32):
        gate = T.match_buffer(p_gate, (T.int32(),), "float32")
        up = T.match_buffer(p_up, (T.int32(),), "float32")
        y = T.match_buffer(p_y, (T.int32(),), "float32")
        for part in loops.groups(ceil_div(columns, LANES), "x"):
            for t in loops.groups(tokens, "y"):
                with T.sblock("group"):
                    T.reads()
                    T.writes()
                    for lane in loops.lanes():
                        if part * LANES + lane < columns:
                            # exp of a large number is infinite, and the quotient then zero.
                            y[at_y(t, part * LANES + lane)] = (
                                gate[at_gate(t, part * LANES + lane)]
                                / (
                                    T.float32(1)
                                    + T.exp(T.float32(0) - gate[at_gate(t, part * LANES + lane)])
                                )
                                * up[at_up(t, part * LANES + lane)]
                            )

    return swiglu
