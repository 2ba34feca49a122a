"""How rope is launched on devices."""

from __future__ import annotations

from arkinfer.backends._device.launches import Kernels, Launch, rows_of, view_of
from arkinfer.backends._steps.plan import Step
from arkinfer.kernels.rope.tir import rope


def launches(kernels: Kernels, step: Step) -> list[Launch]:
    """One launch for any number of tokens."""
    head_dim = int(step.attributes["head_dim"])
    name = kernels.name(rope, rows_of(view_of(step, "x")), head_dim)
    return [Launch(name, dict(step.operands))]
