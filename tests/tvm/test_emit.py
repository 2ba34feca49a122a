"""Sources and launch tables for the targets that nothing here runs, and the traps of emitting."""

from __future__ import annotations

import importlib.util
import re
from typing import Any

import numpy as np
import pytest

from arkinfer.config import SparseConfig
from arkinfer.quantize.schemes import GroupScheme
from arkinfer.tir.matrix import Matrix

pytestmark = pytest.mark.platform
if importlib.util.find_spec("tvm") is None:
    pytest.skip("needs TVM: pip install 'arkinfer[tvm]'", allow_module_level=True)

from arkinfer.backends._device.launches import Kernels  # noqa: E402
from arkinfer.backends.cpu.plan import Step  # noqa: E402
from arkinfer.errors import LoweringError  # noqa: E402
from arkinfer.kernels.attention.tir import Shape, attend, combine  # noqa: E402
from arkinfer.kernels.cache_append.tir import cache_append  # noqa: E402
from arkinfer.kernels.compress_keys.tir import compress_keys  # noqa: E402
from arkinfer.kernels.embed.tir import embed  # noqa: E402
from arkinfer.kernels.logit_statistics.tir import logit_statistics  # noqa: E402
from arkinfer.kernels.matmul.tir import few_rows, many_rows  # noqa: E402
from arkinfer.kernels.rms_norm.tir import rms_norm  # noqa: E402
from arkinfer.kernels.rope.tir import rope  # noqa: E402
from arkinfer.kernels.rope_table.tir import rope_table  # noqa: E402
from arkinfer.kernels.select_blocks.tir import (  # noqa: E402
    Selection,
    choose_blocks,
    normalizers,
    window_scores,
)
from arkinfer.kernels.swiglu.tir import swiglu  # noqa: E402
from arkinfer.tir.caches import Caches  # noqa: E402
from arkinfer.tir.emit import Emitted, device_target, emit  # noqa: E402
from arkinfer.tir.loops import Loops, Rows  # noqa: E402
from arkinfer.tir.sizes import evaluate  # noqa: E402

# What every target of a kind offers to a group: WebGPU's and OpenCL's least, and Apple's.
SHARED_BYTES = {"opencl": 32768, "cuda": 49152, "metal": 32768, "webgpu": 16384}
ENTRY = {
    "opencl": r"__kernel void {}\(",
    "cuda": r"__global__ void __launch_bounds__\(64\) {}\(",
    "metal": r"kernel void {}\(",
    "webgpu": r"fn {}\(",
}


def descriptions(loops: Loops) -> dict[str, Any]:
    """Every kernel, at the shape of MiniCPM4.1-8B."""
    rows = Rows(4096, 4096)
    caches = Caches("f16", 2, 128)
    dense = Shape(caches, 32, 128**-0.5, splits=8)
    chosen = Shape(caches, 32, 128**-0.5, splits=8, most=96)
    selection = Selection(caches, 32, 128**-0.5, SparseConfig())
    matrix = Matrix(4096, 4096, GroupScheme(4, 128))
    width = 2 * (1 + selection.most)
    return {
        "embed": embed(loops, matrix, rows, 12.0),
        "rms_norm": rms_norm(loops, rows, rows, 1e-6),
        "few_rows": few_rows(loops, matrix, rows, rows, "in_place", None, 0.2),
        "many_rows": many_rows(loops, matrix, rows, rows, "in_place", None, 0.2),
        "ternary": few_rows(loops, Matrix(64, 4096, GroupScheme(2, 4096)), rows, rows),
        "rope_table": rope_table(loops, 128, 65536, 1.19),
        "rope": rope(loops, rows, 128),
        "swiglu": swiglu(loops, rows, rows, rows),
        "cache_append": cache_append(loops, caches, Rows(256, 512), Rows(256, 512, 256)),
        "compress_keys": compress_keys(loops, caches, 32, 16),
        "attend": attend(loops, dense, rows, rows),
        "attend_chosen": attend(loops, chosen, rows, rows),
        "combine": combine(loops, dense, rows),
        "normalizers": normalizers(loops, selection, rows),
        "window_scores": window_scores(loops, selection, rows),
        "choose_blocks": choose_blocks(loops, selection, Rows(width, width)),
        "logit_statistics": logit_statistics(loops, Rows(73448, 73448)),
    }


@pytest.fixture(scope="module", params=list(SHARED_BYTES))
def emitted(request: pytest.FixtureRequest) -> tuple[str, Emitted]:
    kind: Any = request.param
    return kind, emit(descriptions(Loops(kind)), device_target(kind))


def test_every_kernel_has_an_entry_and_a_launch(emitted: tuple[str, Emitted]) -> None:
    kind, result = emitted
    scalars = {"tokens": 5, "past": 70000, "total": 70005, "capacity": 131072}
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
