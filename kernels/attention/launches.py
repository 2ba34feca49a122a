"""How attention, dense or block-sparse, is launched on devices."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from arkinfer.backends._device.launches import (
    MANY,
    Kernels,
    Launch,
    Scratch,
    Source,
    cache_of,
    rows_of,
    view_of,
)
from arkinfer.backends._steps.plan import Step
from arkinfer.kernels.attention import tir
from arkinfer.tir.caches import BLOCK

# Groups that share the keys of a token while there are few tokens.
_SPLITS = 8


def launches(kernels: Kernels, step: Step) -> list[Launch]:
    """See :func:`attend_launches`."""
    return attend_launches(kernels, step, tir.attend, 0, BLOCK)


def attend_launches(
    kernels: Kernels, step: Step, describe: Callable[..., Any], most: int, block_size: int
) -> list[Launch]:
    """Groups split the keys of few tokens and combine what they found; many need no split.

    Args:
        kernels: where descriptions go.
        step: of attention or of block_sparse_attention.
        describe: the description that computes it.
        most: blocks that a token attends at most, 0 for all.
        block_size: tokens of a block.
    """
    q, y = view_of(step, "q"), view_of(step, "y")
    layout = kernels.caches(cache_of(step, "key"))
    heads, scale = int(step.attributes["heads"]), step.attributes["scale"]
    few = tir.Shape(layout, heads, scale, _SPLITS, most, block_size)
    many = tir.Shape(layout, heads, scale, 1, most, block_size)
    partials = Scratch("partials", (MANY - 1) * heads * few.splits * few.partial * 4)
    sources: dict[str, Source] = dict(step.operands)
    rows = (rows_of(q), rows_of(y))
    return [
        Launch(kernels.name(describe, few, *rows), sources | {"partials": partials}, 1, MANY - 1),
        Launch(
            kernels.name(tir.combine, few, rows[1]),
            {"partials": partials, "y": y},
            1,
            MANY - 1,
        ),
        Launch(kernels.name(describe, many, *rows), sources, MANY),
    ]
