"""How embed is launched on devices."""

from __future__ import annotations

from arkinfer.backends._device.launches import Kernels, Launch, rows_of, view_of, weight_of
from arkinfer.backends._device.weights import matrix_of
from arkinfer.backends.cpu.plan import Step
from arkinfer.kernels.embed.tir import embed


def launches(kernels: Kernels, step: Step) -> list[Launch]:
    """One launch for any number of tokens."""
    spec, sources = weight_of(kernels, step)
    y = view_of(step, "y")
    name = kernels.name(embed, matrix_of(spec), rows_of(y), step.attributes.get("scale", 1.0))
    return [Launch(name, {**sources, "ids": view_of(step, "ids"), "y": y})]
