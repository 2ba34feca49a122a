"""How block_sparse_attention is launched on CUDA where the cache is fp16."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from arkinfer.backends._steps.plan import Step
from arkinfer.kernels.attention.cuda import FEW, LANES, arguments_of, split_launches

if TYPE_CHECKING:
    from arkinfer.backends._device.launches import Launch
    from arkinfer.backends.cuda.kernels import CudaKernels

_OPERATOR = "block_sparse_attention"
MANY_TOKENS = 4  # of a block of attend_many()
_TILE = 64  # keys of attend_many()
_PIECE = 16  # keys that a warp takes at a time, which lie in one block


def launches(
    kernels: CudaKernels, step: Step, portable: Callable[[], list[Launch]]
) -> list[Launch] | None:
    """See ``backends/cuda/kernels.py``: splits for few tokens; many fill the device without."""
    from arkinfer.backends._device.launches import Launch, cache_of, view_of
    from arkinfer.backends.cuda.kernels import Entry

    kv_heads = cache_of(step, "key").kv_heads
    size = int(step.attributes["block_size"])
    if size % _PIECE:
        return None
    more: dict[str, int | float | str] = {
        "ARK_MOST": view_of(step, "blocks").columns // kv_heads - 1,
        "ARK_BLOCK_SIZE": size,
    }
    few = split_launches(kernels, step, _OPERATOR, more, 1)
    if few is None:
        return None
    defines, found = few
    function, tokens = ("attend_many", MANY_TOKENS) if size == _TILE else ("attend", 1)
    bands = ["/", ["+", "tokens", tokens - 1], tokens]
    whole = defines if size == _TILE else defines | {"ARK_SPLITS": 1}
    entry = Entry(_OPERATOR, function, whole, arguments_of(_OPERATOR), (bands, kv_heads, 1), LANES)
    sources = {**step.operands, "to": view_of(step, "y")}
    return [*found, Launch(kernels.add(entry), sources, FEW + 1)]
