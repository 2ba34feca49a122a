"""matmul as TIR for CPUs: inputs in float32, weights in panels, the 16 outputs of one a vector.

A panel is decoded once for a tile of tokens: for few tokens in registers, a word at a time; for
many into memory that stays in the cache, for all of them.
"""

from __future__ import annotations

from typing import Any

from tvm.script import tirx as T

from arkinfer.kernels.matmul.tir_finish import Residual
from arkinfer.tir.halves import constant
from arkinfer.tir.loops import Loops, Rows, ceil_div
from arkinfer.tir.panels import PANEL, Panels

# Tokens whose sums fit in registers: two of 8 floats each with AVX2, four of 4 with NEON.
FEW_TILE = 4
MANY_TILE = 6


def group_sums(loops: Loops, panels: Panels, x: Rows) -> Any:
    """``sums[t, g]``: the sum of a token's inputs of a group, which offsets are multiplied by.

    Arguments: x (float32), sums (float32 [tokens, groups]), tokens.
    """
    group, groups = panels.group, panels.groups
    width = PANEL if group % PANEL == 0 else 4
    at_x = x.at

    @T.prim_func(s_tir=True)
    def group_sums(p_x: T.handle, p_sums: T.handle, tokens: T.int32):
        x = T.match_buffer(p_x, (T.int32(),), "float32")
        sums = T.match_buffer(p_sums, (T.int32(),), "float32")
        for t in loops.groups(tokens):
            with T.sblock("group"):
                T.reads()
                T.writes()
                for g in T.serial(groups):
                    part = T.alloc_buffer((width,), "float32", scope="local")
                    total = T.alloc_buffer((1,), "float32", scope="local")
                    for o in T.vectorized(width):
                        part[o] = T.float32(0)
                    for step in T.serial(group // width):
                        for o in T.vectorized(width):
                            part[o] += x[at_x(t, g * group + step * width + o)]
                    total[0] = T.float32(0)
                    for o in T.serial(width):
                        total[0] += part[o]
                    sums[t * groups + g] = total[0]

    return group_sums


def few_rows(
    loops: Loops,
    panels: Panels,
    x: Rows,
    y: Rows,
    residual: Residual = "none",
    addend: Rows | None = None,
    factor: float = 1.0,
    tile: int = FEW_TILE,
) -> Any:
    """``y = residual + factor * x @ weight.T``, ``tile`` tokens at a time.

    Arguments: x (float32), codes, scales, offsets (see :class:`Panels`), sums (see
    :func:`group_sums`), residual, y (float32), tokens.
    """
    outputs, group, groups, per_word = panels.outputs, panels.group, panels.groups, panels.per_word
    words, quantized, whole = group // per_word, panels.scheme is not None, outputs % PANEL == 0
    # Sums of one output that run beside each other, so that none waits for the one before.
    chains = min(max(1, FEW_TILE // tile), per_word)
    at_x, at_y, at_addend = x.at, y.at, (addend or y).at
    residual_in = residual

    @T.prim_func(s_tir=True)
    def few_rows(
        p_x: T.handle,
        p_codes: T.handle,
        p_scales: T.handle,
        p_offsets: T.handle,
        p_sums: T.handle,
        p_residual: T.handle,
        p_y: T.handle,
        tokens: T.int32,
    ):
        x = T.match_buffer(p_x, (T.int32(),), "float32")
        codes = T.match_buffer(p_codes, (T.int32(),), panels.codes_type)
        scales = T.match_buffer(p_scales, (T.int32(),), panels.scales_type)
        offsets = T.match_buffer(p_offsets, (T.int32(),), panels.offsets_type)
        sums = T.match_buffer(p_sums, (T.int32(),), "float32")
        residual = T.match_buffer(p_residual, (T.int32(),), "float32")
        y = T.match_buffer(p_y, (T.int32(),), "float32")
        for panel in loops.groups(panels.panels):
            with T.sblock("panel"):
                T.reads()
                T.writes()
                for band in T.serial(ceil_div(tokens, tile)):
                    total = T.alloc_buffer((tile * PANEL,), "float32", scope="local")
                    part = T.alloc_buffer((tile * chains * PANEL,), "float32", scope="local")
                    word = T.alloc_buffer((PANEL,), panels.codes_type, scope="local")
                    scale = T.alloc_buffer((PANEL,), "float32", scope="local")
                    # Rows behind the last are computed as the last once more, and not stored.
                    row = T.alloc_buffer((tile,), "int32", scope="local")
                    for i in T.unroll(tile):
                        row[i] = T.min(band * tile + i, tokens - 1)
                        for o in T.vectorized(PANEL):
                            total[i * PANEL + o] = T.float32(0)
                    for g in T.serial(groups):
                        for i in T.unroll(tile * chains):
                            for o in T.vectorized(PANEL):
                                part[i * PANEL + o] = T.float32(0)
                        for w in T.serial(words):
                            for o in T.vectorized(PANEL):
                                word[o] = codes[panels.word_at(panel, g * words + w, o)]
                            for j in T.unroll(per_word):
                                for i in T.unroll(tile):
                                    for o in T.vectorized(PANEL):
                                        part[(i * chains + j % chains) * PANEL + o] += (
                                            panels.code(word[o], j)
                                            * x[at_x(row[i], g * group + w * per_word + j)]
                                        )
                        for i in T.unroll(tile):
                            for c in T.unroll(chains - 1):
                                for o in T.vectorized(PANEL):
                                    part[i * chains * PANEL + o] += part[
                                        (i * chains + c + 1) * PANEL + o
                                    ]
                        if quantized:
                            for o in T.vectorized(PANEL):
                                scale[o] = T.Cast("float32", scales[panels.group_at(panel, g, o)])
                            for i in T.unroll(tile):
                                for o in T.vectorized(PANEL):
                                    total[i * PANEL + o] += (
                                        scale[o] * part[i * chains * PANEL + o]
                                        + panels.second(
                                            scale[o], offsets[panels.group_at(panel, g, o)]
                                        )
                                        * sums[row[i] * groups + g]
                                    )
                        else:
                            for i in T.unroll(tile):
                                for o in T.vectorized(PANEL):
                                    total[i * PANEL + o] += part[i * chains * PANEL + o]
                    for i in T.unroll(tile):
                        if band * tile + i < tokens:
                            for o in T.vectorized(PANEL):
                                if factor != 1.0:
                                    total[i * PANEL + o] = total[i * PANEL + o] * constant(factor)
                            if whole:
                                for o in T.vectorized(PANEL):
                                    y[at_y(row[i], panel * PANEL + o)] = _added(
                                        total[i * PANEL + o],
                                        residual_in,
                                        residual[at_addend(row[i], panel * PANEL + o)],
                                        y[at_y(row[i], panel * PANEL + o)],
                                    )
                            else:
                                for o in T.serial(T.min(outputs - panel * PANEL, PANEL)):
                                    y[at_y(row[i], panel * PANEL + o)] = _added(
                                        total[i * PANEL + o],
                                        residual_in,
                                        residual[at_addend(row[i], panel * PANEL + o)],
                                        y[at_y(row[i], panel * PANEL + o)],
                                    )

    return few_rows


def many_rows(
    loops: Loops,
    panels: Panels,
    x: Rows,
    y: Rows,
    residual: Residual = "none",
    addend: Rows | None = None,
    factor: float = 1.0,
) -> Any:
    """The same as :func:`few_rows`, with a panel's numbers decoded once for all tokens.

    Arguments: x, codes, scales, offsets, residual, y, tokens.
    """
    outputs, inputs = panels.outputs, panels.inputs
    group, groups, per_word = panels.group, panels.groups, panels.per_word
    words, quantized, whole = group // per_word, panels.scheme is not None, outputs % PANEL == 0
    tile = MANY_TILE
    at_x, at_y, at_addend = x.at, y.at, (addend or y).at
    residual_in = residual

    @T.prim_func(s_tir=True)
    def many_rows(
        p_x: T.handle,
        p_codes: T.handle,
        p_scales: T.handle,
        p_offsets: T.handle,
        p_residual: T.handle,
        p_y: T.handle,
        tokens: T.int32,
    ):
        x = T.match_buffer(p_x, (T.int32(),), "float32")
        codes = T.match_buffer(p_codes, (T.int32(),), panels.codes_type)
        scales = T.match_buffer(p_scales, (T.int32(),), panels.scales_type)
        offsets = T.match_buffer(p_offsets, (T.int32(),), panels.offsets_type)
        residual = T.match_buffer(p_residual, (T.int32(),), "float32")
        y = T.match_buffer(p_y, (T.int32(),), "float32")
        for panel in loops.groups(panels.panels):
            with T.sblock("panel"):
                T.reads()
                T.writes()
                numbers = T.alloc_buffer((inputs * PANEL,), "float32", scope="global")
                for g in T.serial(groups):
                    word = T.alloc_buffer((PANEL,), panels.codes_type, scope="local")
                    scale = T.alloc_buffer((PANEL,), "float32", scope="local")
                    second = T.alloc_buffer((PANEL,), "float32", scope="local")
                    for o in T.vectorized(PANEL):
                        if quantized:
                            scale[o] = T.Cast("float32", scales[panels.group_at(panel, g, o)])
                            second[o] = panels.second(
                                scale[o], offsets[panels.group_at(panel, g, o)]
                            )
                    for w in T.serial(words):
                        for o in T.vectorized(PANEL):
                            word[o] = codes[panels.word_at(panel, g * words + w, o)]
                        for j in T.unroll(per_word):
                            for o in T.vectorized(PANEL):
                                if quantized:
                                    numbers[(g * group + w * per_word + j) * PANEL + o] = (
                                        panels.code(word[o], j) * scale[o] + second[o]
                                    )
                                else:
                                    numbers[(g * group + w * per_word + j) * PANEL + o] = (
                                        panels.code(word[o], j)
                                    )
                for band in T.serial(ceil_div(tokens, tile)):
                    total = T.alloc_buffer((tile * PANEL,), "float32", scope="local")
                    row = T.alloc_buffer((tile,), "int32", scope="local")
                    for i in T.unroll(tile):
                        row[i] = T.min(band * tile + i, tokens - 1)
                        for o in T.vectorized(PANEL):
                            total[i * PANEL + o] = T.float32(0)
                    for k in T.serial(inputs):
                        for i in T.unroll(tile):
                            for o in T.vectorized(PANEL):
                                total[i * PANEL + o] += numbers[k * PANEL + o] * x[at_x(row[i], k)]
                    for i in T.unroll(tile):
                        if band * tile + i < tokens:
                            for o in T.vectorized(PANEL):
                                if factor != 1.0:
                                    total[i * PANEL + o] = total[i * PANEL + o] * constant(factor)
                            if whole:
                                for o in T.vectorized(PANEL):
                                    y[at_y(row[i], panel * PANEL + o)] = _added(
                                        total[i * PANEL + o],
                                        residual_in,
                                        residual[at_addend(row[i], panel * PANEL + o)],
                                        y[at_y(row[i], panel * PANEL + o)],
                                    )
                            else:
                                for o in T.serial(T.min(outputs - panel * PANEL, PANEL)):
                                    y[at_y(row[i], panel * PANEL + o)] = _added(
                                        total[i * PANEL + o],
                                        residual_in,
                                        residual[at_addend(row[i], panel * PANEL + o)],
                                        y[at_y(row[i], panel * PANEL + o)],
                                    )

    return many_rows


def _added(product: Any, residual_in: Residual, separate: Any, in_place: Any) -> Any:
    if residual_in == "none":
        return product
    return product + (separate if residual_in == "separate" else in_place)
