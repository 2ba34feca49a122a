"""swiglu as TIR for CPUs: the columns of a token in vectors."""

from __future__ import annotations

from typing import Any

from tvm.script import tirx as T

from arkinfer.tir.functions import exp
from arkinfer.tir.loops import Loops, Rows, ceil_div

_WIDTH = 16
_PART = 512  # columns of a group, so that one token keeps several threads busy


def swiglu(loops: Loops, gate: Rows, up: Rows, y: Rows) -> Any:
    """See :func:`arkinfer.kernels.swiglu.tir.swiglu`."""
    at_gate, at_up, at_y = gate.at, up.at, y.at
    columns = gate.columns

    @T.prim_func(s_tir=True)
    def swiglu(p_gate: T.handle, p_up: T.handle, p_y: T.handle, tokens: T.int32):
        gate = T.match_buffer(p_gate, (T.int32(),), "float32")
        up = T.match_buffer(p_up, (T.int32(),), "float32")
        y = T.match_buffer(p_y, (T.int32(),), "float32")
        for t in loops.groups(tokens, "x"):
            for part in loops.groups(ceil_div(columns, _PART), "y"):
                with T.sblock("group"):
                    T.reads()
                    T.writes()
                    first = T.alloc_buffer((1,), "int32", scope="local")
                    whole = T.alloc_buffer((1,), "int32", scope="local")
                    first[0] = part * _PART
                    whole[0] = T.min(columns - first[0], _PART) // _WIDTH
                    for step in T.serial(whole[0]):
                        for o in T.vectorized(_WIDTH):
                            y[at_y(t, first[0] + step * _WIDTH + o)] = _gated(
                                gate[at_gate(t, first[0] + step * _WIDTH + o)],
                                up[at_up(t, first[0] + step * _WIDTH + o)],
                            )
                    for o in T.serial(T.min(columns - first[0], _PART) - whole[0] * _WIDTH):
                        y[at_y(t, first[0] + whole[0] * _WIDTH + o)] = _gated(
                            gate[at_gate(t, first[0] + whole[0] * _WIDTH + o)],
                            up[at_up(t, first[0] + whole[0] * _WIDTH + o)],
                        )

    return swiglu


def _gated(gate: Any, up: Any) -> Any:
    return gate / (T.float32(1) + exp(T.float32(0) - gate)) * up
