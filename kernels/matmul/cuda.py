"""How matmul is launched on CUDA where ``cuda.cu`` holds the weight."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from arkinfer.backends._steps.plan import Step, View
from arkinfer.quantize.schemes import GroupScheme
from arkinfer.tir.matrix import Matrix

if TYPE_CHECKING:
    from arkinfer.backends._device.launches import Launch
    from arkinfer.backends.cuda.kernels import CudaKernels

FEW_OUTPUTS = 16  # of a block, few tokens
MANY_OUTPUTS = 128
BAND, TILE = 32, 128  # tokens of a block, some and many
LANES = 256
HALVES = 512  # inputs that a block of to_halves takes
_FEW = 8
_BANDS = 64  # tokens up to which bands waste less than tiles
_MOST_NORMALIZED = 16384  # inputs that a block keeps in registers and, as halves, in 32 KiB
_OFFSETS = ("symmetric", "zero_point", "minimum")
_BY_ROW = 3
_ATTRIBUTES = {"scale", "epsilon", "gated"}


def macros(
    matrix: Matrix,
    x: View,
    y: View,
    addend: View | None,
    factor: float,
    epsilon: float | None = None,
    gated: bool = False,
) -> dict[str, int | float | str] | None:
    """What ``cuda.cu`` is compiled with for a weight, or None where it does not hold it.

    It holds codes of 2, 4 and 8 bits with fp16 scales of groups that are multiples of 16 bytes, or
    with one scale per row.

    Args:
        epsilon: of the norm in front of the product; None without one.
        gated: whether the weight is a gate's rows and then as many of up.
    """
    scheme = matrix.storage
    if not isinstance(scheme, GroupScheme):
        return None
    quad = 4 * matrix.per_word
    by_row = scheme.group_size == matrix.inputs and scheme.offset == "symmetric"
    grouped = scheme.scale_dtype == "fp16" and scheme.group_size % quad == 0
    fours = x.column % 4 == 0 and x.buffer.columns % 4 == 0
    if matrix.inputs % quad or not (by_row or grouped) or not fours:
        return None
    if gated and (matrix.outputs % FEW_OUTPUTS or addend is not None):
        return None
    if epsilon is not None and matrix.inputs > _MOST_NORMALIZED:
        return None
    return {
        "ARK_BITS": scheme.bits,
        "ARK_GROUP": scheme.group_size,
        "ARK_OFFSET": _BY_ROW if by_row else _OFFSETS.index(scheme.offset),
        "ARK_SCALE_WORDS": matrix.scale_words,
        "ARK_OUTPUTS": matrix.outputs,
        "ARK_INPUTS": matrix.inputs,
        "ARK_X_STRIDE": x.buffer.columns,
        "ARK_X_START": x.column,
        "ARK_Y_STRIDE": y.buffer.columns,
        "ARK_Y_START": y.column,
        "ARK_RESIDUAL": int(addend is not None),
        "ARK_R_STRIDE": addend.buffer.columns if addend else 0,
        "ARK_R_START": addend.column if addend else 0,
        "ARK_FACTOR": float(factor),
        "ARK_NORM": int(epsilon is not None),
        "ARK_EPSILON": float(epsilon or 0),
        "ARK_GATED": int(gated),
    }


def _defines(kernels: CudaKernels, step: Step) -> dict[str, int | float | str] | None:
    from arkinfer.backends._device.launches import parts_of_step, view_of

    known = {"x", "y", "codes", "scales", "offsets", "residual", "norm"}
    if not step.operands.keys() <= known or not step.attributes.keys() <= _ATTRIBUTES:
        return None
    # Buffers hold weights whole on CUDA.
    ((part, _),) = parts_of_step(kernels, step)
    return macros(
        part.matrix,
        view_of(step, "x"),
        view_of(step, "y"),
        step.view("residual"),
        step.attributes.get("scale", 1.0),
        step.attributes["epsilon"] if "norm" in step.operands else None,
        bool(step.attributes.get("gated", 0)),
    )


def computes(kernels: CudaKernels, step: Step) -> bool:
    """Whether ``cuda.cu`` holds a product, with the norm and the gate that it takes over."""
    return _defines(kernels, step) is not None


def launches(
    kernels: CudaKernels, step: Step, portable: Callable[[], list[Launch]]
) -> list[Launch] | None:
    """See ``backends/cuda/kernels.py``."""
    from arkinfer.backends._device.launches import Launch, Scratch, parts_of_step, view_of
    from arkinfer.backends.cuda.kernels import Entry

    defines = _defines(kernels, step)
    if defines is None:
        return None
    ((part, sources),) = parts_of_step(kernels, step)
    matrix = part.matrix
    x, y = view_of(step, "x"), view_of(step, "y")
    # Without a norm or an addend the argument is not read.
    norm = step.operands.get("norm", y)
    sources |= {"x": x, "y": y, "residual": step.view("residual") or y, "norm": norm}
    rest = ("codes", "scales", "residual", "y", "tokens")
    halves = Scratch(f"halves_{matrix.inputs}", kernels.chunk * matrix.inputs * 2)

    def name(function: str, arguments: tuple[str, ...], *groups: int | str | list[object]) -> str:
        across, down = groups
        return kernels.add(Entry("matmul", function, defines, arguments, (across, down, 1), LANES))

    few_arguments = ("x", "codes", "scales", "norm", "residual", "y", "tokens")
    one, few = (
        name(entry, few_arguments, -(-matrix.outputs // FEW_OUTPUTS), 1)
        for entry in ("one_row", "few_rows")
    )
    across = 1 if "norm" in step.operands else -(-matrix.inputs // HALVES)
    halve = name("to_halves", ("x", "norm", "halves"), across, "tokens")
    outputs = -(-matrix.outputs // MANY_OUTPUTS)
    some, many = (
        name(entry, ("halves", *rest), ["/", ["+", "tokens", tile - 1], tile], outputs)
        for entry, tile in (("band", BAND), ("tile", TILE))
    )
    return [
        Launch(one, sources, 1, 1),
        Launch(few, sources, 2, _FEW),
        Launch(halve, {"x": x, "norm": norm, "halves": halves}, _FEW + 1),
        Launch(some, sources | {"halves": halves}, _FEW + 1, _BANDS),
        Launch(many, sources | {"halves": halves}, _BANDS + 1),
    ]
