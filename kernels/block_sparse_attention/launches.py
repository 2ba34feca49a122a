"""How block_sparse_attention is launched on devices."""

from __future__ import annotations

from arkinfer.backends._device.launches import Kernels, Launch, cache_of, view_of
from arkinfer.backends._steps.plan import Step
from arkinfer.kernels.attention.launches import attend_launches
from arkinfer.kernels.block_sparse_attention.tir import block_sparse_attention


def launches(kernels: Kernels, step: Step) -> list[Launch]:
    """As for attention; a token's list of blocks begins with their count."""
    most = view_of(step, "blocks").columns // cache_of(step, "key").kv_heads - 1
    size = int(step.attributes["block_size"])
    return attend_launches(kernels, step, block_sparse_attention, most, size)
