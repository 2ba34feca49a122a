"""How matmul is launched on devices."""

from __future__ import annotations

import dataclasses

from arkinfer.backends._device.launches import (
    MANY,
    Kernels,
    Launch,
    parts_of_step,
    rows_of,
    view_of,
)
from arkinfer.backends._device.weights import Part
from arkinfer.backends._steps.plan import Step, View
from arkinfer.errors import LoweringError
from arkinfer.kernels.matmul.tir import few_rows, many_rows
from arkinfer.tir.loops import Rows


def launches(kernels: Kernels, step: Step) -> list[Launch]:
    """One for few tokens and one for many, of each part of the weight.

    Raises:
        LoweringError: the step has an operand or an attribute that no kernel for devices knows.
    """
    x, y, addend = view_of(step, "x"), view_of(step, "y"), step.view("residual")
    residual = "none" if addend is None else "in_place" if addend == y else "separate"
    others = {"x": x, "y": y}
    if addend is not None and residual == "separate":
        others["residual"] = addend
    known = {"x", "y", "codes", "scales", "offsets", "residual"}
    if not step.operands.keys() <= known or not step.attributes.keys() <= {"scale"}:
        raise LoweringError(f"no kernel for devices computes matmul with {sorted(step.operands)}")
    result = []
    for part, sources in parts_of_step(kernels, step):
        arguments = (
            part.matrix,
            rows_of(x),
            _outputs(y, part),
            residual,
            None if addend is None else _outputs(addend, part),
            step.attributes.get("scale", 1.0),
        )
        few, many = (kernels.name(describe, *arguments) for describe in (few_rows, many_rows))
        result.append(Launch(few, sources | others, 1, MANY - 1))
        result.append(Launch(many, sources | others, MANY))
    return result


def _outputs(view: View, part: Part) -> Rows:
    """The columns that a part's outputs are."""
    rows = rows_of(view)
    return dataclasses.replace(rows, columns=part.matrix.outputs, start=rows.start + part.first)
