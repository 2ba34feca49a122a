"""The AVX-512 kernels, with and without VNNI, run by SIMD Everywhere on any AVX2 CPU."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.kernel_checks import run_checks, small_checks
from tests.support.kernel_runner import ToolRunner
from tests.support.native_build import build

pytestmark = pytest.mark.platform


@pytest.fixture(scope="module")
def runner() -> ToolRunner:
    if not Path("/usr/include/simde/x86/avx512.h").exists():
        pytest.skip("needs the system package libsimde-dev")
    return ToolRunner([build("simde", target="kernel_runner") / "kernel_runner"])


@pytest.mark.parametrize("isa", ["avx512", "avx512vnni"])
def test_kernels(runner: ToolRunner, isa: str) -> None:
    assert isa in runner.isas()
    for seed in (3, 4):
        run_checks(runner, small_checks(seed), [isa], (1, 2))


def test_integer_results_are_those_of_avx2(runner: ToolRunner) -> None:
    """Selections and codes come out of different sums; products of codes are exact everywhere."""
    for check in small_checks(5):
        if check.call.kernel == "embed":
            results = runner.run([(check.call, isa, 1) for isa in ("avx512vnni", "avx2")])
            assert results[0]["y"].tobytes() == results[1]["y"].tobytes()
