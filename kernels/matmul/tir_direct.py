"""matmul for many rows as TIR without shared memory, for GPUs that keep it in their RAM.

There a tile would be copied through the same caches that hold what it is copied from. Lanes read
vectors instead, and what neighbours read too comes from the cache.
"""

from __future__ import annotations

from typing import Any

from tvm.script import tirx as T

from arkinfer.kernels.matmul.tir_finish import Finish
from arkinfer.tir.elements import (
    dot,
    in_halves,
    load_inputs,
    load_scale,
    load_words,
    sum_inputs,
    words_at_once,
)
from arkinfer.tir.loops import LANES, Loops, Rows, ceil_div
from arkinfer.tir.matrix import Matrix

_LANE_TOKENS = 4
_LANE_OUTPUTS = 4
_ACROSS = 8  # lanes side by side over outputs


def many_rows_direct(loops: Loops, matrix: Matrix, x: Rows, finish: Finish) -> Any:
    """A group computes 32 tokens by 32 outputs, a lane 4 by 4 of them, a word of inputs at a time.

    Arguments: those of ``few_rows``.
    """
    outputs, count = matrix.outputs, matrix.per_word
    several = words_at_once(loops, matrix)
    places, span = matrix.words // several, several * count
    input_type = "float16" if in_halves(loops, matrix) else "float32"
    group_tokens = LANES // _ACROSS * _LANE_TOKENS
    group_outputs = _ACROSS * _LANE_OUTPUTS
    at_x = x.at

    @T.prim_func(s_tir=True)
    def many_rows_direct(
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
        for part in loops.groups(ceil_div(outputs, group_outputs), "x"):
            for band in loops.groups(ceil_div(tokens, group_tokens), "y"):
                with T.sblock("group"):
                    T.reads()
                    T.writes()
                    for lane in loops.lanes():
                        own = T.alloc_buffer(
                            (_LANE_TOKENS * _LANE_OUTPUTS,), "float32", scope="local"
                        )
                        inputs = T.alloc_buffer((_LANE_TOKENS * count,), input_type, scope="local")
                        word = T.alloc_buffer((_LANE_OUTPUTS * several,), "uint32", scope="local")
                        input_sums = T.alloc_buffer((_LANE_TOKENS,), "float32", scope="local")
                        scale = T.alloc_buffer((2,), "float32", scope="local")
                        # The first token and the first output of the lane, and one of each.
                        at = T.alloc_buffer((4,), "int32", scope="local")
                        at[0] = band * group_tokens + lane // _ACROSS * _LANE_TOKENS
                        at[1] = part * group_outputs + lane % _ACROSS * _LANE_OUTPUTS
                        for i in T.unroll(_LANE_TOKENS * _LANE_OUTPUTS):
                            own[i] = T.float32(0)
                        for place in T.serial(places):
                            for r in T.unroll(_LANE_OUTPUTS):
                                at[3] = T.min(at[1] + r, outputs - 1)
                                load_words(
                                    loops, matrix, word, codes, at[3], place, several, r * several
                                )
                            for w in T.unroll(several):
                                for i in T.unroll(_LANE_TOKENS):
                                    at[2] = T.min(at[0] + i, tokens - 1)
                                    load_inputs(
                                        loops,
                                        inputs,
                                        x,
                                        at_x(at[2], place * span + w * count),
                                        count,
                                        input_type,
                                        i * count,
                                    )
                                sum_inputs(matrix, input_sums, inputs, _LANE_TOKENS)
                                for r in T.unroll(_LANE_OUTPUTS):
                                    at[3] = T.min(at[1] + r, outputs - 1)
                                    load_scale(
                                        loops,
                                        matrix,
                                        scale,
                                        scales,
                                        at[3],
                                        place * span + w * count,
                                    )
                                    for i in T.unroll(_LANE_TOKENS):
                                        own[i * _LANE_OUTPUTS + r] += dot(
                                            loops,
                                            matrix,
                                            word[r * several + w],
                                            scale[0],
                                            scale[1],
                                            inputs,
                                            i * count,
                                            input_sums[i],
                                        )
                        for i in T.unroll(_LANE_TOKENS):
                            for r in T.unroll(_LANE_OUTPUTS):
                                if at[0] + i < tokens and at[1] + r < outputs:
                                    finish.store(
                                        y,
                                        residual,
                                        at[0] + i,
                                        at[1] + r,
                                        own[i * _LANE_OUTPUTS + r],
                                    )

    return many_rows_direct
