"""matmul as TIR: one schedule for few rows, which reads weights once a row, one for many."""

from __future__ import annotations

from typing import Any, Literal

from tvm.script import tirx as T

from arkinfer.tir.elements import dot, element, scale_and_second
from arkinfer.tir.halves import constant
from arkinfer.tir.loops import LANES, Loops, Rows, ceil_div
from arkinfer.tir.matrix import Matrix

# Where the residual is: in a buffer of its own, or in y, which then becomes the sum.
Residual = Literal["none", "separate", "in_place"]

_OUTPUTS = 4  # of a group, few rows
_TILE_TOKENS = 32  # of a group, many rows; a lane computes 8 tokens by 4 outputs of it
_TILE_OUTPUTS = 64
_TILE_INPUTS = 32
_LANE_TOKENS = 8
_LANE_OUTPUTS = 4


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
    they read it side by side.

    Arguments: x (float32), codes, scales (words of ``matrix``), residual, y (float32), tokens.
    """
    outputs, words, count = matrix.outputs, matrix.words, matrix.per_word
    steps = ceil_div(words, LANES)
    at_x, at_y = x.at, y.at
    at_addend = (addend or y).at
    residual_in = residual

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
                    sums = T.alloc_buffer((_OUTPUTS * LANES,), "float32", scope=loops.shared)
                    for lane in loops.lanes():
                        own = T.alloc_buffer((_OUTPUTS,), "float32", scope="local")
                        inputs = T.alloc_buffer((count,), "float32", scope="local")
                        scale = T.alloc_buffer((2,), "float32", scope="local")
                        row = T.alloc_buffer((1,), "int32", scope="local")
                        word = T.alloc_buffer((1,), "uint32", scope="local")
                        for r in T.unroll(_OUTPUTS):
                            own[r] = T.float32(0)
                        for step in T.serial(steps):
                            if step * LANES + lane < words:
                                for j in T.unroll(count):
                                    inputs[j] = x[at_x(t, (step * LANES + lane) * count + j)]
                                for r in T.unroll(_OUTPUTS):
                                    row[0] = T.min(part * _OUTPUTS + r, outputs - 1)
                                    word[0] = codes[row[0] * words + step * LANES + lane]
                                    scale[0] = scale_and_second(
                                        matrix, scales, row[0], (step * LANES + lane) * count
                                    )[0]
                                    scale[1] = scale_and_second(
                                        matrix, scales, row[0], (step * LANES + lane) * count
                                    )[1]
                                    own[r] += dot(matrix, word[0], scale[0], scale[1], inputs)
                        for r in T.unroll(_OUTPUTS):
                            sums[r * LANES + lane] = own[r]
                    for lane in loops.lanes():
                        total = T.alloc_buffer((1,), "float32", scope="local")
                        if lane < _OUTPUTS and part * _OUTPUTS + lane < outputs:
                            total[0] = T.float32(0)
                            for other in T.serial(LANES):
                                total[0] += sums[lane * LANES + other]
                            if factor != 1.0:
                                total[0] = total[0] * constant(factor)
                            if residual_in == "separate":
                                total[0] += residual[at_addend(t, part * _OUTPUTS + lane)]
                            if residual_in == "in_place":
                                total[0] += y[at_y(t, part * _OUTPUTS + lane)]
                            y[at_y(t, part * _OUTPUTS + lane)] = total[0]

    return few_rows


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

    A tile's inputs and numbers go through shared memory, 32 inputs at a time.
    """
    outputs, inputs, words, count = matrix.outputs, matrix.inputs, matrix.words, matrix.per_word
    steps = ceil_div(inputs, _TILE_INPUTS)
    row_words = _TILE_INPUTS // count
    word_steps = ceil_div(_TILE_OUTPUTS * row_words, LANES)
    x_steps = _TILE_TOKENS * _TILE_INPUTS // LANES
    across = _TILE_OUTPUTS // _LANE_OUTPUTS
    own_count = _LANE_TOKENS * _LANE_OUTPUTS
    at_x, at_y = x.at, y.at
    at_addend = (addend or y).at
    residual_in = residual

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
                        (_TILE_INPUTS * _TILE_TOKENS,), "float32", scope=loops.shared
                    )
                    tile_w = T.alloc_buffer(
                        (_TILE_INPUTS * _TILE_OUTPUTS,), "float32", scope=loops.shared
                    )
                    own = T.alloc_buffer(
                        (loops.private_size(own_count),), "float32", scope=loops.private
                    )
                    for lane in loops.lanes():
                        for i in T.unroll(own_count):
                            own[loops.own(lane, i, own_count)] = T.float32(0)
                    for step in T.serial(steps):
                        for lane in loops.lanes():
                            word = T.alloc_buffer((1,), "uint32", scope="local")
                            scale = T.alloc_buffer((2,), "float32", scope="local")
                            place = T.alloc_buffer((3,), "int32", scope="local")
                            for i in T.serial(x_steps):
                                # Consecutive lanes read consecutive inputs of a token.
                                place[0] = (i * LANES + lane) // _TILE_INPUTS
                                place[1] = (i * LANES + lane) % _TILE_INPUTS
                                place[2] = step * _TILE_INPUTS + place[1]
                                tile_x[place[1] * _TILE_TOKENS + place[0]] = T.float32(0)
                                if band * _TILE_TOKENS + place[0] < tokens and place[2] < inputs:
                                    tile_x[place[1] * _TILE_TOKENS + place[0]] = x[
                                        at_x(band * _TILE_TOKENS + place[0], place[2])
                                    ]
                            for i in T.serial(word_steps):
                                place[0] = (i * LANES + lane) // row_words
                                place[1] = (i * LANES + lane) % row_words
                                place[2] = T.min(part * _TILE_OUTPUTS + place[0], outputs - 1)
                                if place[0] < _TILE_OUTPUTS:
                                    if step * row_words + place[1] < words:
                                        word[0] = codes[
                                            place[2] * words + step * row_words + place[1]
                                        ]
                                        scale[0] = scale_and_second(
                                            matrix,
                                            scales,
                                            place[2],
                                            (step * row_words + place[1]) * count,
                                        )[0]
                                        scale[1] = scale_and_second(
                                            matrix,
                                            scales,
                                            place[2],
                                            (step * row_words + place[1]) * count,
                                        )[1]
                                        for j in T.unroll(count):
                                            tile_w[
                                                (place[1] * count + j) * _TILE_OUTPUTS + place[0]
                                            ] = element(matrix, word[0], j, scale[0], scale[1])
                                    else:
                                        for j in T.unroll(count):
                                            tile_w[
                                                (place[1] * count + j) * _TILE_OUTPUTS + place[0]
                                            ] = T.float32(0)
                        for lane in loops.lanes():
                            left = T.alloc_buffer((_LANE_TOKENS,), "float32", scope="local")
                            right = T.alloc_buffer((_LANE_OUTPUTS,), "float32", scope="local")
                            for k in T.serial(_TILE_INPUTS):
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
                                        own[loops.own(lane, i * _LANE_OUTPUTS + j, own_count)] += (
                                            left[i] * right[j]
                                        )
                    for lane in loops.lanes():
                        total = T.alloc_buffer((1,), "float32", scope="local")
                        at = T.alloc_buffer((2,), "int32", scope="local")
                        for i in T.unroll(_LANE_TOKENS):
                            for j in T.unroll(_LANE_OUTPUTS):
                                at[0] = band * _TILE_TOKENS + lane // across * _LANE_TOKENS + i
                                at[1] = part * _TILE_OUTPUTS + j * across + lane % across
                                if at[0] < tokens and at[1] < outputs:
                                    total[0] = own[
                                        loops.own(lane, i * _LANE_OUTPUTS + j, own_count)
                                    ]
                                    if factor != 1.0:
                                        total[0] = total[0] * constant(factor)
                                    if residual_in == "separate":
                                        total[0] += residual[at_addend(at[0], at[1])]
                                    if residual_in == "in_place":
                                        total[0] += y[at_y(at[0], at[1])]
                                    y[at_y(at[0], at[1])] = total[0]

    return many_rows
