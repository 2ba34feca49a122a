"""How swiglu is launched on devices."""

from __future__ import annotations

from arkinfer.backends._device.launches import Kernels, Launch, rows_of, view_of
from arkinfer.backends._steps.plan import Step
from arkinfer.kernels.swiglu.tir import swiglu


def launches(kernels: Kernels, step: Step) -> list[Launch]:
    """One launch for any number of tokens."""
    rows = [rows_of(view_of(step, name)) for name in ("gate", "up", "y")]
    return [Launch(kernels.name(swiglu, *rows), dict(step.operands))]
