"""How cache_append is launched on devices."""

from __future__ import annotations

from arkinfer.backends._device.launches import (
    Kernels,
    Launch,
    Source,
    cache_of,
    rows_of,
    view_of,
)
from arkinfer.backends._steps.plan import Step
from arkinfer.kernels.cache_append.tir import cache_append
from arkinfer.kernels.cache_append.tir_rotated import rotate_and_append


def launches(kernels: Kernels, step: Step) -> list[Launch]:
    """One launch for any number of tokens, which also rotates where the step has a table."""
    rotates = "table" in step.operands
    rows = [rows_of(view_of(step, name)) for name in (*(("x",) if rotates else ()), "k", "v")]
    describe = rotate_and_append if rotates else cache_append
    name = kernels.name(describe, kernels.caches(cache_of(step, "key")), *rows)
    sources: dict[str, Source] = dict(step.operands)
    if rotates:
        sources["q"] = sources.pop("x")
    return [Launch(name, sources)]
