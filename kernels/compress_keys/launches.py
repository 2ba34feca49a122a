"""How compress_keys is launched on devices."""

from __future__ import annotations

from arkinfer.backends._device.launches import Kernels, Launch, cache_of
from arkinfer.backends._steps.plan import Step
from arkinfer.kernels.compress_keys.tir import compress_keys


def launches(kernels: Kernels, step: Step) -> list[Launch]:
    """One launch for any number of tokens."""
    sizes = [int(step.attributes[name]) for name in ("window", "stride")]
    name = kernels.name(compress_keys, kernels.caches(cache_of(step, "key")), *sizes)
    return [Launch(name, dict(step.operands))]
