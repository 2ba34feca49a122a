"""Sources and launch tables for the targets that nothing here runs, and the traps of emitting."""

from __future__ import annotations

import importlib.util
import re
from typing import Any

import numpy as np
import pytest

from arkinfer.quantize.schemes import GroupScheme
from arkinfer.tir.matrix import Matrix

pytestmark = pytest.mark.platform
if importlib.util.find_spec("tvm") is None:
    pytest.skip("needs TVM: pip install 'arkinfer[tvm]'", allow_module_level=True)

from arkinfer.backends._device.launches import Kernels  # noqa: E402
from arkinfer.backends._steps.plan import Step  # noqa: E402
from arkinfer.errors import LoweringError  # noqa: E402
from arkinfer.kernels.matmul.tir import few_rows, many_rows  # noqa: E402
from arkinfer.kernels.rope_table.tir import rope_table  # noqa: E402
from arkinfer.tir.emit import Emitted, device_target, emit  # noqa: E402
from arkinfer.tir.loops import Loops, Rows  # noqa: E402
from arkinfer.tir.sizes import evaluate  # noqa: E402
from tests.support.tir_descriptions import descriptions  # noqa: E402

# What every target of a kind offers to a group: WebGPU's and OpenCL's least, and Apple's.
SHARED_BYTES = {"opencl": 32768, "cuda": 49152, "metal": 32768, "webgpu": 16384}
ENTRY = {
    "opencl": r"__kernel void {}\(",
    "cuda": r"__global__ void __launch_bounds__\(64\) {}\(",
    "metal": r"kernel void {}\(",
    "webgpu": r"fn {}\(",
}


@pytest.fixture(scope="module", params=list(SHARED_BYTES))
def emitted(request: pytest.FixtureRequest) -> tuple[str, Emitted]:
    kind: Any = request.param
    return kind, emit(descriptions(Loops(kind)), device_target(kind))


def test_every_kernel_has_an_entry_and_a_launch(emitted: tuple[str, Emitted]) -> None:
    kind, result = emitted
    scalars = {"tokens": 20, "past": 70000, "total": 70020, "capacity": 131072}
    for kernel in result.kernels.values():
        assert re.search(ENTRY[kind].format(kernel.name), result.source), kernel.name
        assert kernel.lanes == 64
        assert kernel.shared_bytes <= SHARED_BYTES[kind]
        assert all(evaluate(size, scalars) >= 1 for size in kernel.groups)
        assert "tokens" in kernel.scalars


def test_arguments_stand_in_the_order_of_the_source(emitted: tuple[str, Emitted]) -> None:
    kind, result = emitted
    if kind not in ("opencl", "cuda"):
        pytest.skip("scalars of Metal and WebGPU stand in a structure of their own")
    for kernel in result.kernels.values():
        found = re.search(rf"{kernel.name}\(([^)]*)\) {{", result.source)
        assert found is not None
        names = [part.split()[-1].removesuffix("_ptr") for part in found.group(1).split(",")]
        assert tuple(names) == kernel.arguments


def test_brackets_close(emitted: tuple[str, Emitted]) -> None:
    _, result = emitted
    text = re.sub(r"//[^\n]*", "", result.source)
    for left, right in ("()", "[]", "{}"):
        assert text.count(left) == text.count(right)


def test_launches_of_one_kernel() -> None:
    matrix = Matrix(130, 96, GroupScheme(4, 32))
    rows = [Rows(96, 96), Rows(130, 130)]
    functions = {
        "one": few_rows(Loops("opencl"), matrix, *rows),
        "many": many_rows(Loops("opencl"), matrix, *rows),
    }
    kernels = emit(functions, device_target("opencl")).kernels
    sizes = {
        name: [[evaluate(g, {"tokens": n}) for g in kernel.groups] for n in (1, 33)]
        for name, kernel in kernels.items()
    }
    assert sizes == {"one": [[33, 1, 1], [33, 33, 1]], "many": [[3, 1, 1], [3, 2, 1]]}
    # A float's residual and unused scales are no arguments of a kernel that reads neither.
    assert sorted(kernels["one"].arguments) == ["codes", "scales", "tokens", "x", "y"]


def test_constants_keep_their_last_bit() -> None:
    """Code generators print seven digits: 2^24 would become 16777220."""
    source = emit(
        {"table": rope_table(Loops("opencl"), 64, 0, float(np.float32(1 / 3)))},
        device_target("opencl"),
    ).source
    assert "3.333333e-01f" not in source
    assert str(int(np.float32(1 / 3).view(np.uint32))) in source


@pytest.mark.parametrize("kernel", ["no_such_operator", "logit_statistics"])
def test_a_step_without_launches_is_refused_by_name(kernel: str) -> None:
    kernels = Kernels(Loops("opencl"), "f16", 64, {})
    with pytest.raises(LoweringError, match=f"no kernel for devices computes {kernel}"):
        kernels.launches(Step(kernel, {}, {}))
