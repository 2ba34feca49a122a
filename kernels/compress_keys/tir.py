"""compress_keys as TIR: a group per new window and key-value head, a lane per pair."""

from __future__ import annotations

from typing import Any

from tvm.script import tirx as T

from arkinfer.tir.caches import BLOCK, Caches
from arkinfer.tir.halves import constant
from arkinfer.tir.loops import LANES, Loops, ceil_div


def window_capacity(capacity: Any, stride: int) -> Any:
    """Places of a cache of compressed keys beside one of ``capacity`` tokens, a multiple of 64."""
    return (capacity // stride + BLOCK) // BLOCK * BLOCK


def windows_before(length: Any, window: int, stride: int) -> Any:
    """Whole windows in that many tokens."""
    return T.max(length - (window - stride), 0) // stride


def compress_keys(loops: Loops, caches: Caches, window: int, stride: int) -> Any:
    """Write the means of the windows that the tokens past .. past + tokens - 1 complete.

    Arguments: key, compressed (see :class:`Caches`), tokens, past, capacity.
    """
    pairs, kv_heads, element = caches.pairs, caches.kv_heads, caches.element

    @T.prim_func(s_tir=True)
    def compress_keys(
        p_key: T.handle,
        p_compressed: T.handle,
        tokens: T.int32,
        past: T.int32,
        capacity: T.int32,
    ):
        key = T.match_buffer(p_key, (T.int32(),), element)
        compressed = T.match_buffer(p_compressed, (T.int32(),), element)
        # Most tokens complete none: then there is nothing to launch.
        for new in loops.groups(
            windows_before(past + tokens, window, stride) - windows_before(past, window, stride),
            "x",
        ):
            for head in loops.groups(kv_heads, "y"):
                with T.sblock("group"):
                    T.reads()
                    T.writes()
                    for lane in loops.lanes():
                        sums = T.alloc_buffer((2,), "float32", scope="local")
                        index = T.alloc_buffer((1,), "int32", scope="local")
                        index[0] = windows_before(past, window, stride) + new
                        for step in T.serial(ceil_div(pairs, LANES)):
                            if step * LANES + lane < pairs:
                                sums[0] = T.float32(0)
                                sums[1] = T.float32(0)
                                for i in T.serial(window):
                                    sums[0] += caches.load(
                                        key,
                                        caches.key_at(
                                            capacity,
                                            head,
                                            index[0] * stride + i,
                                            step * LANES + lane,
                                        ),
                                        True,
                                    )[0]
                                    sums[1] += caches.load(
                                        key,
                                        caches.key_at(
                                            capacity,
                                            head,
                                            index[0] * stride + i,
                                            step * LANES + lane,
                                        ),
                                        True,
                                    )[1]
                                caches.store(
                                    compressed,
                                    caches.key_at(
                                        window_capacity(capacity, stride),
                                        head,
                                        index[0],
                                        step * LANES + lane,
                                    ),
                                    True,
                                    sums[0] * constant(1 / window),
                                    sums[1] * constant(1 / window),
                                )

    return compress_keys
