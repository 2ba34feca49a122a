"""matmul as TIR: one schedule for few rows, which reads weights once a row, some for many.

``tir_tiles.py`` has tiles in shared memory, ``tir_direct.py`` those of GPUs without any.
"""

from __future__ import annotations

from typing import Any

from tvm.script import tirx as T

from arkinfer.kernels.matmul.tir_finish import Finish, Residual
from arkinfer.kernels.matmul.tir_tiles import many_rows
from arkinfer.tir.elements import (
    dot,
    in_halves,
    load_inputs,
    load_scale,
    load_words,
    sum_inputs,
    words_at_once,
)
from arkinfer.tir.loops import Loops, Rows, ceil_div
from arkinfer.tir.matrix import Matrix

__all__ = ["few_rows", "many_rows"]

_OUTPUTS = 4  # that a lane computes a part of


def few_rows(
    loops: Loops,
    matrix: Matrix,
    x: Rows,
    y: Rows,
    residual: Residual = "none",
    addend: Rows | None = None,
    factor: float = 1.0,
) -> Any:
    """``y = residual + factor * x @ matrix.T``, for each token by itself.

    A group computes some outputs of one token; its lanes share out the words of a row, so that
    they read it side by side. Where there are sub-groups, it is one, and needs no shared memory.

    Arguments: x (float32), codes, scales (words of ``matrix``), residual, y (float32), tokens.
    """
    outputs, count, group = matrix.outputs, matrix.per_word, matrix.group
    several = words_at_once(loops, matrix)
    places, span = matrix.words // several, several * count
    input_type = "float16" if in_halves(loops, matrix) else "float32"
    across, subgroups = loops.across, bool(loops.schedule.subgroup)
    at_x = x.at
    finish = Finish(y, residual, addend, factor)

    @T.prim_func(s_tir=True)
    def few_rows(
        p_x: T.handle,
        p_codes: T.handle,
        p_scales: T.handle,
        p_residual: T.handle,
        p_y: T.handle,
        tokens: T.int32,
    ):
        x = T.match_buffer(p_x, (T.int32(),), "float32")
        codes = T.match_buffer(p_codes, (T.int32(),), "uint32")
        scales = T.match_buffer(p_scales, (T.int32(),), "uint32")
        residual = T.match_buffer(p_residual, (T.int32(),), "float32")
        y = T.match_buffer(p_y, (T.int32(),), "float32")
        for part in loops.groups(ceil_div(outputs, _OUTPUTS), "x"):
            for t in loops.groups(tokens, "y"):
                with T.sblock("group"):
                    T.reads()
                    T.writes()
                    sums = T.alloc_buffer((_OUTPUTS * across,), "float32", scope=loops.shared)
                    for lane in loops.lanes(across):
                        own = T.alloc_buffer((_OUTPUTS,), "float32", scope="local")
                        inputs = T.alloc_buffer((span,), input_type, scope="local")
                        input_sums = T.alloc_buffer((several,), "float32", scope="local")
                        scale = T.alloc_buffer((2,), "float32", scope="local")
                        row = T.alloc_buffer((1,), "int32", scope="local")
                        word = T.alloc_buffer((several,), "uint32", scope="local")
                        for r in T.unroll(_OUTPUTS):
                            own[r] = T.float32(0)
                        for step in T.serial(ceil_div(places, across)):
                            if step * across + lane < places:
                                load_inputs(
                                    loops,
                                    inputs,
                                    x,
                                    at_x(t, (step * across + lane) * span),
                                    span,
                                    input_type,
                                )
                                sum_inputs(matrix, input_sums, inputs, several)
                                for r in T.unroll(_OUTPUTS):
                                    row[0] = T.min(part * _OUTPUTS + r, outputs - 1)
                                    load_words(
                                        loops,
                                        matrix,
                                        word,
                                        codes,
                                        row[0],
                                        step * across + lane,
                                        several,
                                    )
                                    for i in T.unroll(several):
                                        if i * count % group == 0:
                                            load_scale(
                                                loops,
                                                matrix,
                                                scale,
                                                scales,
                                                row[0],
                                                (step * across + lane) * span + i * count,
                                            )
                                        own[r] += dot(
                                            loops,
                                            matrix,
                                            word[i],
                                            scale[0],
                                            scale[1],
                                            inputs,
                                            i * count,
                                            input_sums[i],
                                        )
                        for r in T.unroll(_OUTPUTS):
                            if subgroups:
                                own[r] = loops.total(own[r])
                                if lane == r and part * _OUTPUTS + r < outputs:
                                    finish.store(y, residual, t, part * _OUTPUTS + r, own[r])
                            else:
                                sums[r * across + lane] = own[r]
                    if not subgroups:
                        for lane in loops.lanes(across):
                            total = T.alloc_buffer((1,), "float32", scope="local")
                            if lane < _OUTPUTS and part * _OUTPUTS + lane < outputs:
                                total[0] = T.float32(0)
                                for other in T.serial(across):
                                    total[0] += sums[lane * across + other]
                                finish.store(y, residual, t, part * _OUTPUTS + lane, total[0])

    return few_rows
