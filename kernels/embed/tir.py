"""embed as TIR: a group per token, a lane per word of the row."""

from __future__ import annotations

from typing import Any

from tvm.script import tirx as T

from arkinfer.tir.elements import element, load_scale
from arkinfer.tir.halves import constant
from arkinfer.tir.loops import LANES, Loops, Rows, ceil_div
from arkinfer.tir.matrix import Matrix


def embed(
    loops: Loops, matrix: Matrix, y: Rows, factor: float = 1.0, first: int | None = None
) -> Any:
    """``y[t] = factor * matrix[ids[t]]``.

    With ``first``, ``matrix`` is the part of a table from that row on, and only tokens whose row
    it holds are written.

    Arguments: ids (int32), codes, scales (words of ``matrix``), y (float32), tokens.
    """
    at_y = y.at
    words, count = matrix.words, matrix.per_word
    steps = ceil_div(words, LANES)
    start, end = first or 0, (first or 0) + matrix.outputs

    def held(row: Any) -> Any:
        return True if first is None else T.And(row >= start, row < end)

    @T.prim_func(s_tir=True)
    def embed(
        p_ids: T.handle, p_codes: T.handle, p_scales: T.handle, p_y: T.handle, tokens: T.int32
    ):
        ids = T.match_buffer(p_ids, (T.int32(),), "int32")
        codes = T.match_buffer(p_codes, (T.int32(),), "uint32")
        scales = T.match_buffer(p_scales, (T.int32(),), "uint32")
        y = T.match_buffer(p_y, (T.int32(),), "float32")
        for t in loops.groups(tokens):
            with T.sblock("group"):
                T.reads()
                T.writes()
                for lane in loops.lanes():
                    word = T.alloc_buffer((1,), "uint32", scope="local")
                    scale = T.alloc_buffer((2,), "float32", scope="local")
                    row = T.alloc_buffer((1,), "int32", scope="local")
                    for step in T.serial(steps):
                        if step * LANES + lane < words and held(ids[t]):
                            row[0] = ids[t] - start
                            word[0] = codes[row[0] * words + step * LANES + lane]
                            load_scale(
                                loops,
                                matrix,
                                scale,
                                scales,
                                row[0],
                                (step * LANES + lane) * count,
                            )
                            for j in T.unroll(count):
                                y[at_y(t, (step * LANES + lane) * count + j)] = constant(
                                    factor
                                ) * element(loops, matrix, word[0], j, scale[0], scale[1])

    return embed
