"""logit_statistics as TIR: a group per row."""

from __future__ import annotations

from typing import Any

from tvm.script import tirx as T

from arkinfer.tir.loops import LANES, Loops, Rows, ceil_div

_LEAST = -1e30  # below every logit


def logit_statistics(loops: Loops, logits: Rows) -> Any:
    """The best token of each row, its logit, and the logarithm of the sum of exponentials.

    Arguments: logits (float32), best (int32 [tokens]), statistics (float32 [tokens, 2]), tokens.
    """
    columns, at_logits = logits.columns, logits.at

    @T.prim_func(s_tir=True)
    def logit_statistics(
        p_logits: T.handle, p_best: T.handle, p_statistics: T.handle, tokens: T.int32
    ):
        logits = T.match_buffer(p_logits, (T.int32(),), "float32")
        best = T.match_buffer(p_best, (T.int32(),), "int32")
        statistics = T.match_buffer(p_statistics, (T.int32(),), "float32")
        for t in loops.groups(tokens):
            with T.sblock("group"):
                T.reads()
                T.writes()
                tops = T.alloc_buffer((LANES,), "float32", scope=loops.shared)
                places = T.alloc_buffer((LANES,), "int32", scope=loops.shared)
                sums = T.alloc_buffer((LANES,), "float32", scope=loops.shared)
                for lane in loops.lanes():
                    top = T.alloc_buffer((1,), "float32", scope="local")
                    place = T.alloc_buffer((1,), "int32", scope="local")
                    total = T.alloc_buffer((1,), "float32", scope="local")
                    value = T.alloc_buffer((1,), "float32", scope="local")
                    top[0] = T.float32(_LEAST)
                    place[0] = columns
                    total[0] = T.float32(0)
                    for step in T.serial(ceil_div(columns, LANES)):
                        if step * LANES + lane < columns:
                            value[0] = logits[at_logits(t, step * LANES + lane)]
                            if value[0] > top[0]:
                                total[0] = total[0] * T.exp(top[0] - value[0])
                                top[0] = value[0]
                                place[0] = step * LANES + lane
                            total[0] += T.exp(value[0] - top[0])
                    tops[lane] = top[0]
                    places[lane] = place[0]
                    sums[lane] = total[0]
                for lane in loops.lanes():
                    top = T.alloc_buffer((1,), "float32", scope="local")
                    place = T.alloc_buffer((1,), "int32", scope="local")
                    total = T.alloc_buffer((1,), "float32", scope="local")
                    value = T.alloc_buffer((1,), "float32", scope="local")
                    index = T.alloc_buffer((1,), "int32", scope="local")
                    if lane == 0:
                        top[0] = T.float32(_LEAST)
                        place[0] = columns
                        total[0] = T.float32(0)
                        for other in T.serial(LANES):
                            # TVM looks for shared memory in statements, not in conditions.
                            value[0] = tops[other]
                            index[0] = places[other]
                            if value[0] > top[0] or (value[0] == top[0] and index[0] < place[0]):
                                top[0] = value[0]
                                place[0] = index[0]
                        for other in T.serial(LANES):
                            total[0] += sums[other] * T.exp(tops[other] - top[0])
                        best[t] = place[0]
                        statistics[t * 2] = top[0]
                        statistics[t * 2 + 1] = top[0] + T.log(total[0])

    return logit_statistics
