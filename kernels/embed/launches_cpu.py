"""How embed is launched on a CPU, where weights lie in panels."""

from __future__ import annotations

from arkinfer.backends._device.launches import Kernels, Launch, rows_of, view_of
from arkinfer.backends._steps.plan import Step
from arkinfer.kernels.embed.tir_cpu import embed
from arkinfer.tir.panels import Panels


def launches(kernels: Kernels, step: Step, panels: Panels) -> list[Launch]:
    """One, for any number of tokens."""
    y, factor = view_of(step, "y"), step.attributes.get("scale", 1.0)
    return [Launch(kernels.name(embed, panels, rows_of(y), factor), dict(step.operands))]
