"""Schedules of products that this machine's profiles do not lead to, against the reference."""

from __future__ import annotations

import importlib.util
from typing import Any

import numpy as np
import pytest

from arkinfer import devices
from arkinfer.kernels.matmul.reference import matmul
from arkinfer.quantize.schemes import GroupScheme
from arkinfer.tir.schedule import GENERIC, Schedule, schedule_of

pytestmark = pytest.mark.platform
if importlib.util.find_spec("tvm") is None:
    pytest.skip("needs TVM: pip install 'arkinfer[tvm]'", allow_module_level=True)

from arkinfer.kernels.matmul.tir import few_rows, many_rows  # noqa: E402
from arkinfer.tir.emit import device_target, emit  # noqa: E402
from arkinfer.tir.loops import Loops, Rows  # noqa: E402
from arkinfer.tir.matrix import Matrix  # noqa: E402
from tests.support.tir_runner import PLATFORM, OpenClRunner, opencl_platforms  # noqa: E402
from tests.tvm.test_kernels import blank, error, normal, weight  # noqa: E402

# The parts of the schedules for Adreno and Mali that need no extension.
PARTS = {
    "images": Schedule(vector=4, images=True),
    "direct": Schedule(vector=4, staged=False),
}


@pytest.fixture(scope="module", params=list(PARTS))
def runner(request: pytest.FixtureRequest) -> OpenClRunner:
    if PLATFORM not in opencl_platforms():
        pytest.skip(f"needs {PLATFORM} (PoCL is Debian's pocl-opencl-icd) and pyopencl")
    return OpenClRunner(PLATFORM, PARTS[request.param])


@pytest.mark.parametrize("describe", [few_rows, many_rows])
@pytest.mark.parametrize(
    ("storage", "inputs"),
    [
        (GroupScheme(4, 32, "minimum", "fp16"), 160),
        (GroupScheme(8, 16, "symmetric", "fp16"), 96),
        (GroupScheme(2, 128, "symmetric", "fp32"), 256),
        (GroupScheme(4, 24, "zero_point", "fp16"), 72),  # words that no place holds four of
        ("f16", 64),
    ],
    ids=str,
)
def test_parts(runner: OpenClRunner, describe: Any, storage: Any, inputs: int) -> None:
    matrix, codes, scales, values = weight(storage, 70, inputs)
    x = normal(np.random.default_rng(inputs), 33, inputs)
    given = {"x": x, "codes": codes, "scales": scales, "residual": x, "y": blank(33, 70)}
    kernel = describe(runner.loops, matrix, Rows(inputs, inputs), Rows(70, 70))
    got = runner.run(kernel, {**given, "tokens": 33})["y"]
    assert error(got, matmul(x, values)) < 2e-6


def test_profiles_decide() -> None:
    adreno, mali = (schedule_of(devices.get(name)) for name in ("adreno", "mali"))
    assert schedule_of(devices.get("opencl")) == GENERIC
    assert (adreno.subgroup, adreno.vector, adreno.half, adreno.images) == (64, 4, True, True)
    assert (mali.subgroup, mali.vector, mali.half, mali.staged) == (0, 4, True, False)


def test_adreno_text() -> None:
    """What only Qualcomm's compiler takes, so that nothing here can build it."""
    schedule = schedule_of(devices.get("adreno"))
    loops, target = Loops("opencl", schedule), device_target("opencl")
    matrix = Matrix(256, 4096, GroupScheme(4, 128, "symmetric", "fp16"))
    rows = Rows(4096, 4096), Rows(256, 256)
    emitted = emit({"few": few_rows(loops, matrix, *rows)}, target, schedule)
    assert emitted.extensions == (
        "cl_khr_fp16",
        "cl_khr_subgroups",
        "cl_qcom_reqd_sub_group_size",
    )
    assert emitted.kernels["few"].images == {"codes"}
    assert emitted.kernels["few"].shared_bytes == 0
    assert "__read_only image1d_buffer_t codes_ptr" in emitted.source
    size = '__attribute__((qcom_reqd_sub_group_size("half")))\n__kernel void few_kernel('
    assert emitted.source.count(size) == emitted.source.count("__kernel void") == 2
