"""matmul for many rows as TIR, in tiles that go through shared memory."""

from __future__ import annotations

from typing import Any

from tvm.script import tirx as T

from arkinfer.kernels.matmul.tir_direct import many_rows_direct
from arkinfer.kernels.matmul.tir_finish import Finish, Residual
from arkinfer.tir.elements import (
    element,
    in_halves,
    load_inputs,
    load_scale,
    load_words,
    words_at_once,
)
from arkinfer.tir.loops import LANES, Loops, Rows, ceil_div
from arkinfer.tir.matrix import Matrix

_TILE_TOKENS = 32  # of a group; a lane computes 8 tokens by 4 outputs of it
_TILE_OUTPUTS = 64
_TILE_INPUTS = 32
_LANE_TOKENS = 8
_LANE_OUTPUTS = 4


def many_rows(
    loops: Loops,
    matrix: Matrix,
    x: Rows,
    y: Rows,
    residual: Residual = "none",
    addend: Rows | None = None,
    factor: float = 1.0,
) -> Any:
    """The same as :func:`few_rows`, in tiles of 32 tokens by 64 outputs.

    A tile's inputs and numbers go through shared memory, 32 inputs at a time; in fp16 where that
    is fast, and then the sum of 32 products too. Where shared memory is none, see
    :func:`many_rows_direct`.
    """
    finish = Finish(y, residual, addend, factor)
    if not loops.schedule.staged:
        return many_rows_direct(loops, matrix, x, finish)
    outputs, inputs, words, count = matrix.outputs, matrix.inputs, matrix.words, matrix.per_word
    group = matrix.group
    half = in_halves(loops, matrix)
    tile_type = "float16" if half else "float32"
    vectors = loops.schedule.vector > 1
    wide = 4 if vectors and inputs % 4 == 0 else 1  # inputs that a lane reads at once
    several = words_at_once(loops, matrix, _TILE_INPUTS // count)
    steps = ceil_div(inputs, _TILE_INPUTS)
    row_places, span = _TILE_INPUTS // count // several, several * count
    word_steps = ceil_div(_TILE_OUTPUTS * row_places, LANES)
    x_steps = _TILE_TOKENS * _TILE_INPUTS // LANES // wide
    across = _TILE_OUTPUTS // _LANE_OUTPUTS
    # A lane's outputs are side by side where it reads vectors of them; else those of lanes are.
    lane_step, output_step = (_LANE_OUTPUTS, 1) if vectors else (1, across)
    own_count = _LANE_TOKENS * _LANE_OUTPUTS
    at_x = x.at

    @T.prim_func(s_tir=True)
    def many_rows(
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
        for part in loops.groups(ceil_div(outputs, _TILE_OUTPUTS), "x"):
            for band in loops.groups(ceil_div(tokens, _TILE_TOKENS), "y"):
                with T.sblock("group"):
                    T.reads()
                    T.writes()
                    tile_x = T.alloc_buffer(
                        (_TILE_INPUTS * _TILE_TOKENS,), tile_type, scope=loops.shared
                    )
                    tile_w = T.alloc_buffer(
                        (_TILE_INPUTS * _TILE_OUTPUTS,), tile_type, scope=loops.shared
                    )
                    own = T.alloc_buffer(
                        (loops.private_size(own_count),), "float32", scope=loops.private
                    )
                    for lane in loops.lanes():
                        for i in T.unroll(own_count):
                            own[loops.own(lane, i, own_count)] = T.float32(0)
                    for step in T.serial(steps):
                        for lane in loops.lanes():
                            word = T.alloc_buffer((several,), "uint32", scope="local")
                            scale = T.alloc_buffer((2,), "float32", scope="local")
                            place = T.alloc_buffer((3,), "int32", scope="local")
                            read = T.alloc_buffer((wide,), tile_type, scope="local")
                            for i in T.serial(x_steps):
                                # Consecutive lanes read consecutive inputs of a token.
                                place[0] = (i * LANES + lane) * wide // _TILE_INPUTS
                                place[1] = (i * LANES + lane) * wide % _TILE_INPUTS
                                place[2] = step * _TILE_INPUTS + place[1]
                                for j in T.unroll(wide):
                                    read[j] = T.Cast(tile_type, T.float32(0))
                                if band * _TILE_TOKENS + place[0] < tokens and place[2] < inputs:
                                    load_inputs(
                                        loops,
                                        read,
                                        x,
                                        at_x(band * _TILE_TOKENS + place[0], place[2]),
                                        wide,
                                        tile_type,
                                    )
                                for j in T.unroll(wide):
                                    tile_x[(place[1] + j) * _TILE_TOKENS + place[0]] = read[j]
                            for i in T.serial(word_steps):
                                place[0] = (i * LANES + lane) // row_places
                                place[1] = (i * LANES + lane) % row_places
                                place[2] = T.min(part * _TILE_OUTPUTS + place[0], outputs - 1)
                                if place[0] < _TILE_OUTPUTS:
                                    if (step * row_places + place[1]) * several < words:
                                        load_words(
                                            loops,
                                            matrix,
                                            word,
                                            codes,
                                            place[2],
                                            step * row_places + place[1],
                                            several,
                                        )
                                        for w in T.unroll(several):
                                            if w * count % group == 0:
                                                load_scale(
                                                    loops,
                                                    matrix,
                                                    scale,
                                                    scales,
                                                    place[2],
                                                    (step * row_places + place[1]) * span
                                                    + w * count,
                                                )
                                            for j in T.unroll(count):
                                                tile_w[
                                                    (place[1] * span + w * count + j)
                                                    * _TILE_OUTPUTS
                                                    + place[0]
                                                ] = T.Cast(
                                                    tile_type,
                                                    element(
                                                        loops,
                                                        matrix,
                                                        word[w],
                                                        j,
                                                        scale[0],
                                                        scale[1],
                                                    ),
                                                )
                                    else:
                                        for j in T.unroll(span):
                                            tile_w[
                                                (place[1] * span + j) * _TILE_OUTPUTS + place[0]
                                            ] = T.Cast(tile_type, T.float32(0))
                        for lane in loops.lanes():
                            left = T.alloc_buffer((_LANE_TOKENS,), tile_type, scope="local")
                            right = T.alloc_buffer((_LANE_OUTPUTS,), tile_type, scope="local")
                            sums = T.alloc_buffer((own_count,), "float16", scope="local")
                            if half:
                                for i in T.unroll(own_count):
                                    sums[i] = T.float16(0)
                            for k in T.serial(_TILE_INPUTS):
                                if vectors:
                                    left[T.Ramp(0, 1, _LANE_TOKENS)] = tile_x[
                                        T.Ramp(
                                            k * _TILE_TOKENS + lane // across * _LANE_TOKENS,
                                            1,
                                            _LANE_TOKENS,
                                        )
                                    ]
                                    right[T.Ramp(0, 1, _LANE_OUTPUTS)] = tile_w[
                                        T.Ramp(
                                            k * _TILE_OUTPUTS + lane % across * _LANE_OUTPUTS,
                                            1,
                                            _LANE_OUTPUTS,
                                        )
                                    ]
                                else:
                                    for i in T.unroll(_LANE_TOKENS):
                                        left[i] = tile_x[
                                            k * _TILE_TOKENS + lane // across * _LANE_TOKENS + i
                                        ]
                                    for j in T.unroll(_LANE_OUTPUTS):
                                        right[j] = tile_w[
                                            k * _TILE_OUTPUTS + j * across + lane % across
                                        ]
                                for i in T.unroll(_LANE_TOKENS):
                                    for j in T.unroll(_LANE_OUTPUTS):
                                        if half:
                                            sums[i * _LANE_OUTPUTS + j] += left[i] * right[j]
                                        else:
                                            own[
                                                loops.own(lane, i * _LANE_OUTPUTS + j, own_count)
                                            ] += left[i] * right[j]
                            if half:
                                for i in T.unroll(own_count):
                                    own[loops.own(lane, i, own_count)] += T.Cast("float32", sums[i])
                    for lane in loops.lanes():
                        at = T.alloc_buffer((2,), "int32", scope="local")
                        for i in T.unroll(_LANE_TOKENS):
                            for j in T.unroll(_LANE_OUTPUTS):
                                at[0] = band * _TILE_TOKENS + lane // across * _LANE_TOKENS + i
                                at[1] = (
                                    part * _TILE_OUTPUTS
                                    + j * output_step
                                    + lane % across * lane_step
                                )
                                if at[0] < tokens and at[1] < outputs:
                                    finish.store(
                                        y,
                                        residual,
                                        at[0],
                                        at[1],
                                        own[loops.own(lane, i * _LANE_OUTPUTS + j, own_count)],
                                    )

    return many_rows
