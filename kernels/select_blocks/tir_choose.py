"""The choice of blocks as TIR: windows pooled to blocks, of which the best are taken."""

from __future__ import annotations

from typing import Any

from tvm.script import tirx as T

from arkinfer.kernels.compress_keys.tir import window_capacity, windows_before
from arkinfer.kernels.select_blocks.tir_scores import Selection
from arkinfer.tir.halves import as_bits, u32
from arkinfer.tir.loops import LANES, Loops, Rows, ceil_div


def block_capacity(capacity: Any, block_size: int) -> Any:
    """Blocks of a cache of ``capacity`` tokens."""
    return ceil_div(capacity, block_size)


def _sort_key(value: Any) -> Any:
    """Larger floats give larger integers; 0 is left for blocks that cannot be chosen."""
    bits = as_bits(value)
    return T.Select(
        (bits & u32(0x80000000)) != u32(0), bits ^ u32(0xFFFFFFFF), bits | u32(0x80000000)
    )


def choose_blocks(loops: Loops, selection: Selection, y: Rows) -> Any:
    """A group per token and key-value head: pool windows to blocks and take the best.

    The lowest key that is taken is found bit by bit, from the highest. Then each lane writes the
    chosen among some consecutive blocks, behind those of the lanes before it.

    Arguments: windows (see ``window_scores``), keys (uint32 [tokens, kv_heads, blocks of the
    capacity]), y (int32 [tokens, kv_heads * (1 + most)]), tokens, past, capacity.
    """
    sparse, kv_heads, most = selection.sparse, selection.caches.kv_heads, selection.most
    block_size, stride, window = sparse.block_size, sparse.kernel_stride, sparse.kernel_size
    ratio = block_size // stride
    generation_b = sparse.generation == "B"
    wanted = most if generation_b else sparse.topk
    local, init, dense_len = sparse.local_blocks, sparse.init_blocks, sparse.dense_len
    # The first of a query's own blocks, counted back from its last.
    reach = local if generation_b else local - 1
    at_y = y.at

    @T.prim_func(s_tir=True)
    def choose_blocks(
        p_windows: T.handle,
        p_keys: T.handle,
        p_y: T.handle,
        tokens: T.int32,
        past: T.int32,
        capacity: T.int32,
    ):
        windows = T.match_buffer(p_windows, (T.int32(),), "float32")
        keys = T.match_buffer(p_keys, (T.int32(),), "uint32")
        y = T.match_buffer(p_y, (T.int32(),), "int32")
        for t in loops.groups(tokens, "x"):
            for head in loops.groups(kv_heads, "y"):
                with T.sblock("group"):
                    T.reads()
                    T.writes()
                    counts = T.alloc_buffer((LANES,), "int32", scope=loops.shared)
                    equals = T.alloc_buffer((LANES,), "int32", scope=loops.shared)
                    taken = T.alloc_buffer((LANES,), "int32", scope=loops.shared)
                    # A lane's blocks: from (lane * per) on.
                    lowest = T.alloc_buffer((loops.private_size(1),), "uint32", scope=loops.private)
                    sizes = T.alloc_buffer((4,), "int32", scope="local")
                    sizes[0] = (past + t) // block_size  # the last block
                    sizes[1] = ceil_div(sizes[0] + 1, LANES)  # blocks of a lane
                    sizes[2] = (t * kv_heads + head) * block_capacity(capacity, block_size)
                    sizes[3] = (t * kv_heads + head) * window_capacity(capacity, stride)
                    for lane in loops.lanes():
                        best = T.alloc_buffer((1,), "uint32", scope="local")
                        block = T.alloc_buffer((1,), "int32", scope="local")
                        first = T.alloc_buffer((1,), "int32", scope="local")
                        behind = T.alloc_buffer((1,), "int32", scope="local")
                        lowest[loops.own(lane, 0, 1)] = u32(0)
                        for i in T.serial(sizes[1]):
                            block[0] = lane * sizes[1] + i
                            if block[0] <= sizes[0]:
                                best[0] = u32(0)
                                first[0] = T.max(ratio * block[0] - 1, 0)
                                behind[0] = T.min(
                                    windows_before(past + t + 1, window, stride),
                                    ratio * block[0] + ratio,
                                )
                                for j in T.serial(T.max(behind[0] - first[0], 0)):
                                    best[0] = T.max(
                                        best[0], _sort_key(windows[sizes[3] + first[0] + j])
                                    )
                                if block[0] < init:
                                    best[0] = u32(0xFF800000)
                                if block[0] >= sizes[0] - reach:
                                    # Generation A attends to its window apart from what it
                                    # chooses by score; generation B lets it take part.
                                    if generation_b:
                                        best[0] = u32(0xFF800000)
                                    else:
                                        best[0] = u32(0)
                                keys[sizes[2] + block[0]] = best[0]
                    for bit in T.serial(32):
                        for lane in loops.lanes():
                            count = T.alloc_buffer((1,), "int32", scope="local")
                            count[0] = 0
                            for i in T.serial(sizes[1]):
                                if lane * sizes[1] + i <= sizes[0]:
                                    if keys[sizes[2] + lane * sizes[1] + i] >= (
                                        lowest[loops.own(lane, 0, 1)]
                                        | (u32(0x80000000) >> T.Cast("uint32", bit))
                                    ):
                                        count[0] += 1
                            counts[lane] = count[0]
                        for lane in loops.lanes():
                            total = T.alloc_buffer((1,), "int32", scope="local")
                            total[0] = 0
                            for other in T.serial(LANES):
                                total[0] += counts[other]
                            if total[0] >= wanted:
                                lowest[loops.own(lane, 0, 1)] = lowest[loops.own(lane, 0, 1)] | (
                                    u32(0x80000000) >> T.Cast("uint32", bit)
                                )
                    for lane in loops.lanes():
                        above = T.alloc_buffer((2,), "int32", scope="local")
                        above[0] = 0
                        above[1] = 0
                        for i in T.serial(sizes[1]):
                            if lane * sizes[1] + i <= sizes[0]:
                                if (
                                    keys[sizes[2] + lane * sizes[1] + i]
                                    > lowest[loops.own(lane, 0, 1)]
                                ):
                                    above[0] += 1
                                if (
                                    keys[sizes[2] + lane * sizes[1] + i]
                                    == lowest[loops.own(lane, 0, 1)]
                                ):
                                    above[1] += 1
                        counts[lane] = above[0]
                        equals[lane] = above[1]
                    # Pass 0 counts the chosen of each lane, pass 1 writes them.
                    for turn in T.serial(2):
                        for lane in loops.lanes():
                            left = T.alloc_buffer((1,), "int32", scope="local")
                            place = T.alloc_buffer((1,), "int32", scope="local")
                            take = T.alloc_buffer((1,), "int32", scope="local")
                            own = T.alloc_buffer((1,), "uint32", scope="local")
                            # Equals of the lowest key that may be taken, smaller blocks first.
                            left[0] = wanted
                            place[0] = 0
                            for other in T.serial(LANES):
                                left[0] -= counts[other]
                                if other < lane:
                                    left[0] -= equals[other]
                                    if turn == 1:
                                        place[0] += taken[other]
                            for i in T.serial(sizes[1]):
                                if lane * sizes[1] + i <= sizes[0]:
                                    own[0] = keys[sizes[2] + lane * sizes[1] + i]
                                    take[0] = 0
                                    if own[0] > lowest[loops.own(lane, 0, 1)]:
                                        take[0] = 1
                                    if own[0] == lowest[loops.own(lane, 0, 1)]:
                                        if own[0] != u32(0) and left[0] > 0:
                                            take[0] = 1
                                        left[0] -= 1
                                    if T.bool(not generation_b):
                                        if lane * sizes[1] + i >= sizes[0] - reach:
                                            take[0] = 1
                                    if take[0] == 1:
                                        if turn == 1 and place[0] < most:
                                            y[at_y(t, head * (1 + most) + 1 + place[0])] = (
                                                lane * sizes[1] + i
                                            )
                                        place[0] += 1
                            if turn == 0:
                                taken[lane] = place[0]
                    for lane in loops.lanes():
                        total = T.alloc_buffer((1,), "int32", scope="local")
                        total[0] = 0
                        for other in T.serial(LANES):
                            total[0] += taken[other]
                        total[0] = T.min(total[0], most)
                        if past + t + 1 < dense_len:
                            total[0] = -1
                        if lane == 0:
                            y[at_y(t, head * (1 + most))] = total[0]
                        for step in T.serial(ceil_div(most, LANES)):
                            if step * LANES + lane < most and step * LANES + lane >= total[0]:
                                y[at_y(t, head * (1 + most) + 1 + step * LANES + lane)] = -1

    return choose_blocks
