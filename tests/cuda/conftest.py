"""Kernels in CUDA C++, run under an emulation on the CPU; no test here needs a GPU."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest

from tests.support.cuda_on_cpu import KERNELS, Program

Compile = Callable[[str, Mapping[str, int | float | str]], Program]


@pytest.fixture(scope="session")
def compile_cuda(tmp_path_factory: pytest.TempPathFactory) -> Compile:
    """Compiles an operator's ``cuda.cu`` with macros, once however often it is asked for."""
    folder = tmp_path_factory.mktemp("cuda")
    return lambda operator, defines: Program(KERNELS / operator / "cuda.cu", defines, folder)
