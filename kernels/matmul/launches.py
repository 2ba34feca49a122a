"""How matmul is launched on devices."""

from __future__ import annotations

from arkinfer.backends._device.launches import MANY, Kernels, Launch, rows_of, view_of, weight_of
from arkinfer.backends._device.weights import matrix_of
from arkinfer.backends.cpu.plan import Step
from arkinfer.errors import LoweringError
from arkinfer.kernels.matmul.tir import few_rows, many_rows


def launches(kernels: Kernels, step: Step) -> list[Launch]:
    """One for few tokens and one for many.

    Raises:
        LoweringError: the step has an operand or an attribute that no kernel for devices knows.
    """
    spec, sources = weight_of(kernels, step)
    x, y, addend = view_of(step, "x"), view_of(step, "y"), step.view("residual")
    residual = "none" if addend is None else "in_place" if addend == y else "separate"
    sources |= {"x": x, "y": y}
    if addend is not None and residual == "separate":
        sources["residual"] = addend
    known = {"x", "y", "codes", "scales", "offsets", "residual"}
    if not step.operands.keys() <= known or not step.attributes.keys() <= {"scale"}:
        raise LoweringError(f"no kernel for devices computes matmul with {sorted(step.operands)}")
    arguments = (
        matrix_of(spec),
        rows_of(x),
        rows_of(y),
        residual,
        None if addend is None else rows_of(addend),
        step.attributes.get("scale", 1.0),
    )
    few = Launch(kernels.name(few_rows, *arguments), sources, 1, MANY - 1)
    return [few, Launch(kernels.name(many_rows, *arguments), sources, MANY)]
