"""The kernels on aarch64, baseline and dot-product CPUs, under qemu."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.support.kernel_checks import run_checks, small_checks
from tests.support.kernel_runner import ToolRunner
from tests.support.native_build import build

pytestmark = pytest.mark.platform
SYSROOT = "/usr/aarch64-linux-gnu"
# What each CPU has must be found at run time: qemu traps the others' instructions.
CPUS = {"cortex-a57": ["neon", "scalar"], "cortex-a76": ["dotprod", "neon", "scalar"]}
CPUS["max"] = CPUS["cortex-a76"]


@pytest.fixture(scope="module")
def tool() -> Path:
    for program in ("aarch64-linux-gnu-g++", "qemu-aarch64"):
        if shutil.which(program) is None:
            pytest.skip(f"needs the system package with {program}")
    return build("aarch64", target="kernel_runner") / "kernel_runner"


@pytest.mark.parametrize("cpu", CPUS)
def test_kernel_sets_are_chosen_at_run_time(tool: Path, cpu: str) -> None:
    runner = ToolRunner(["qemu-aarch64", "-cpu", cpu, "-L", SYSROOT, tool])
    assert runner.isas() == CPUS[cpu]


@pytest.mark.parametrize("cpu", CPUS)
def test_kernels(tool: Path, cpu: str) -> None:
    runner = ToolRunner(["qemu-aarch64", "-cpu", cpu, "-L", SYSROOT, tool])
    run_checks(runner, small_checks(2), CPUS[cpu], (1, 3))
