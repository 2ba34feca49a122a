"""The kernels on aarch64 under qemu: baseline, dot-product and matrix-product CPUs."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.kernel_checks import check_rows_alone, run_checks, small_checks
from tests.support.kernel_runner import ToolRunner
from tests.support.native_build import build

pytestmark = pytest.mark.platform
SYSROOT = "/usr/aarch64-linux-gnu"
# What each CPU has must be found at run time: qemu traps the others' instructions.
CPUS = {
    "cortex-a57": ["neon", "scalar"],
    "cortex-a76": ["dotprod", "neon", "scalar"],
    "max": ["i8mm", "dotprod", "neon", "scalar"],
}


def _emulated(cpu: str, program: str) -> list[str | Path]:
    for needed in ("aarch64-linux-gnu-g++", "qemu-aarch64"):
        if shutil.which(needed) is None:
            pytest.skip(f"needs the system package with {needed}")
    return ["qemu-aarch64", "-cpu", cpu, "-L", SYSROOT, build("aarch64", target=program) / program]


@pytest.mark.parametrize("cpu", CPUS)
def test_kernel_sets_are_chosen_at_run_time(cpu: str) -> None:
    assert ToolRunner(_emulated(cpu, "kernel_runner")).isas() == CPUS[cpu]


@pytest.mark.parametrize("cpu", CPUS)
def test_kernels(cpu: str) -> None:
    """The kernels that each CPU chooses; on one of them also the portable ones."""
    runner = ToolRunner(_emulated(cpu, "kernel_runner"))
    kernels = runner.kernels()
    isas = CPUS[cpu] if cpu == "cortex-a57" else CPUS[cpu][:1]
    for isa in isas:
        found = [check for check in small_checks(2) if check.call.kernel in kernels[isa]]
        assert found
        run_checks(runner, found, [isa], (1, 3))
        check_rows_alone(runner, isa, "u4 minimum f16", 0, 512)


@pytest.mark.parametrize("cpu", CPUS)
def test_a_tiny_model_from_prompt_to_tokens(cpu: str) -> None:
    """With every kernel set of the CPU, in one chunk and token by token, with threads."""
    command = [str(part) for part in [*_emulated(cpu, "native_tests"), "real_kernels"]]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1].endswith(" 0 failed")
    assert "real_kernels_generate" in done.stdout
