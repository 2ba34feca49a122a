"""How rms_norm is launched on devices."""

from __future__ import annotations

from arkinfer.backends._device.launches import Kernels, Launch, rows_of, view_of
from arkinfer.backends._steps.plan import Step
from arkinfer.kernels.rms_norm.tir import rms_norm


def launches(kernels: Kernels, step: Step) -> list[Launch]:
    """One launch for any number of tokens."""
    rows = [rows_of(view_of(step, name)) for name in ("x", "y")]
    name = kernels.name(rms_norm, *rows, step.attributes["epsilon"])
    return [Launch(name, dict(step.operands))]
