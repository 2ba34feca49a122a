"""How matmul is launched on a CPU, where weights lie in panels."""

from __future__ import annotations

from arkinfer.backends._device.launches import (
    MANY,
    Kernels,
    Launch,
    Scratch,
    Source,
    rows_of,
    view_of,
)
from arkinfer.backends._steps.plan import Step
from arkinfer.kernels.matmul.tir_cpu import few_rows, group_sums, many_rows
from arkinfer.tir.panels import Panels


def launches(kernels: Kernels, step: Step, panels: Panels) -> list[Launch]:
    """One for a token, one for few and one for many; few multiply offsets by sums of inputs."""
    x, y, addend = view_of(step, "x"), view_of(step, "y"), step.view("residual")
    arguments = (
        panels,
        rows_of(x),
        rows_of(y),
        "none" if addend is None else "in_place" if addend == y else "separate",
        None if addend is None else rows_of(addend),
        step.attributes.get("scale", 1.0),
    )
    sums = Scratch("sums", (MANY - 1) * panels.groups * 4)
    few: dict[str, Source] = {**step.operands, "sums": sums}
    made = [
        Launch(kernels.name(few_rows, *arguments, 1), few, 1, 1),
        Launch(kernels.name(few_rows, *arguments), few, 2, MANY - 1),
        Launch(kernels.name(many_rows, *arguments), dict(step.operands), MANY),
    ]
    if panels.scheme is not None:
        sum_up = Launch(kernels.name(group_sums, panels, rows_of(x)), few, 1, MANY - 1)
        made.insert(0, sum_up)
    return made
