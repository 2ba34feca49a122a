"""How cache_append is launched on devices."""

from __future__ import annotations

from arkinfer.backends._device.launches import Kernels, Launch, cache_of, rows_of, view_of
from arkinfer.backends._steps.plan import Step
from arkinfer.kernels.cache_append.tir import cache_append


def launches(kernels: Kernels, step: Step) -> list[Launch]:
    """One launch for any number of tokens."""
    rows = [rows_of(view_of(step, name)) for name in ("k", "v")]
    name = kernels.name(cache_append, kernels.caches(cache_of(step, "key")), *rows)
    return [Launch(name, dict(step.operands))]
