"""How embed is launched on devices."""

from __future__ import annotations

from arkinfer.backends._device.launches import Kernels, Launch, parts_of_step, rows_of, view_of
from arkinfer.backends._steps.plan import Step
from arkinfer.kernels.embed.tir import embed


def launches(kernels: Kernels, step: Step) -> list[Launch]:
    """One launch for any number of tokens, for each part of the table."""
    y, others = view_of(step, "y"), {"ids": view_of(step, "ids"), "y": view_of(step, "y")}
    factor = step.attributes.get("scale", 1.0)
    parts = parts_of_step(kernels, step)
    result = []
    for part, sources in parts:
        first = part.first if len(parts) > 1 else None
        name = kernels.name(embed, part.matrix, rows_of(y), factor, first)
        result.append(Launch(name, sources | others))
    return result
