"""embed as TIR for CPUs, from weights in panels."""

from __future__ import annotations

from typing import Any

from tvm.script import tirx as T

from arkinfer.tir.halves import constant
from arkinfer.tir.loops import Loops, Rows
from arkinfer.tir.panels import PANEL, Panels


def embed(loops: Loops, panels: Panels, y: Rows, factor: float = 1.0) -> Any:
    """``y[t] = factor * weight[ids[t]]``.

    Arguments: ids (int32), codes, scales, offsets (see :class:`Panels`), y (float32), tokens.
    """
    group, groups, per_word = panels.group, panels.groups, panels.per_word
    words, quantized = group // per_word, panels.scheme is not None
    at_y = y.at

    @T.prim_func(s_tir=True)
    def embed(
        p_ids: T.handle,
        p_codes: T.handle,
        p_scales: T.handle,
        p_offsets: T.handle,
        p_y: T.handle,
        tokens: T.int32,
    ):
        ids = T.match_buffer(p_ids, (T.int32(),), "int32")
        codes = T.match_buffer(p_codes, (T.int32(),), panels.codes_type)
        scales = T.match_buffer(p_scales, (T.int32(),), panels.scales_type)
        offsets = T.match_buffer(p_offsets, (T.int32(),), panels.offsets_type)
        y = T.match_buffer(p_y, (T.int32(),), "float32")
        for t in loops.groups(tokens):
            with T.sblock("token"):
                T.reads()
                T.writes()
                for g in T.serial(groups):
                    scale = T.alloc_buffer((2,), "float32", scope="local")
                    at = T.alloc_buffer((1,), "int32", scope="local")
                    scale[0] = T.float32(1)
                    scale[1] = T.float32(0)
                    if quantized:
                        at[0] = panels.group_at(ids[t] // PANEL, g, ids[t] % PANEL)
                        scale[0] = T.Cast("float32", scales[at[0]])
                        scale[1] = panels.second(scale[0], offsets[at[0]])
                    for w in T.serial(words):
                        at[0] = panels.word_at(ids[t] // PANEL, g * words + w, ids[t] % PANEL)
                        for j in T.unroll(per_word):
                            y[at_y(t, g * group + w * per_word + j)] = constant(factor) * (
                                panels.code(codes[at[0]], j) * scale[0] + scale[1]
                            )

    return embed
