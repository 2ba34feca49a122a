"""How rms_norm is launched on CUDA."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from arkinfer.backends._steps.plan import Step, View

if TYPE_CHECKING:
    from arkinfer.backends._device.launches import Launch
    from arkinfer.backends.cuda.kernels import CudaKernels

LANES = 256
_REGISTERS = 64  # numbers that a thread keeps


def macros(x: View, y: View, epsilon: float) -> dict[str, int | float | str] | None:
    """What ``cuda.cu`` is compiled with, or None where a row does not fit a block's registers."""
    if x.columns > LANES * _REGISTERS:
        return None
    return {
        "ARK_COLUMNS": x.columns,
        "ARK_X_STRIDE": x.buffer.columns,
        "ARK_X_START": x.column,
        "ARK_Y_STRIDE": y.buffer.columns,
        "ARK_Y_START": y.column,
        "ARK_EPSILON": float(epsilon),
    }


def launches(
    kernels: CudaKernels, step: Step, portable: Callable[[], list[Launch]]
) -> list[Launch] | None:
    """See ``backends/cuda/kernels.py``."""
    from arkinfer.backends._device.launches import Launch, view_of
    from arkinfer.backends.cuda.kernels import Entry

    defines = macros(view_of(step, "x"), view_of(step, "y"), step.attributes["epsilon"])
    if defines is None:
        return None
    entry = Entry("rms_norm", "rms_norm", defines, ("x", "weight", "y"), ("tokens", 1, 1), LANES)
    return [Launch(kernels.add(entry), dict(step.operands))]
