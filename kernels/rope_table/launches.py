"""How rope_table is launched on devices."""

from __future__ import annotations

from arkinfer.backends._device.launches import Kernels, Launch, view_of
from arkinfer.backends._steps.plan import Step
from arkinfer.kernels.rope_table.tir import rope_table


def launches(kernels: Kernels, step: Step) -> list[Launch]:
    """One launch for any number of tokens."""
    get = step.attributes.get
    head_dim = view_of(step, "y").columns
    limit, factor = int(get("original_max", 0)), get("attention_factor", 1.0)
    return [Launch(kernels.name(rope_table, head_dim, limit, factor), dict(step.operands))]
