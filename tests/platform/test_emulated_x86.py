"""The AVX-VNNI, AVX-512 and AMX kernels, their instructions emulated on any AVX2 CPU."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.kernel_checks import check_rows_alone, run_checks, small_checks
from tests.support.kernel_runner import ToolRunner
from tests.support.native_build import build

pytestmark = pytest.mark.platform
ISAS = ("amx", "avx512vnni", "avx512", "avxvnni")


@pytest.fixture(scope="module")
def runner() -> ToolRunner:
    if not Path("/usr/include/simde/x86/avx512.h").exists():
        pytest.skip("needs the system package libsimde-dev")
    return ToolRunner([build("simde", target="kernel_runner") / "kernel_runner"])


def test_every_kernel_set_is_there(runner: ToolRunner) -> None:
    assert tuple(runner.isas()) == (*ISAS, "scalar")


@pytest.mark.parametrize("isa", ISAS)
def test_kernels(runner: ToolRunner, isa: str) -> None:
    own = runner.kernels()[isa]
    assert "matmul" in own
    for seed in (3, 4):
        found = [check for check in small_checks(seed) if check.call.kernel in own]
        run_checks(runner, found, [isa], (1, 2))


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("kind", ["u4 zero f16", "i8 symmetric f16"])
def test_a_row_does_not_depend_on_the_rows_beside_it(
    runner: ToolRunner, isa: str, kind: str
) -> None:
    check_rows_alone(runner, isa, kind, 0, 512)


def test_looked_up_codes_are_those_of_the_portable_kernels(runner: ToolRunner) -> None:
    """No sums, so no rounding: every set gives the same bits."""
    for check in small_checks(5):
        if check.call.kernel == "embed":
            results = runner.run([(check.call, isa, 1) for isa in ("avx512", "scalar")])
            assert results[0]["y"].tobytes() == results[1]["y"].tobytes()
