"""Kernels in CUDA C++, run under an emulation on the CPU; no test here needs a GPU.

With ARK_TEST_CUDA=device they run on one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest

from tests.support import cuda_program
from tests.support.cuda_compiler import KERNELS
from tests.support.cuda_on_cpu import Program

Compile = Callable[[str, Mapping[str, int | float | str]], Program | cuda_program.DeviceCode]


@pytest.fixture(scope="session")
def compile_cuda(tmp_path_factory: pytest.TempPathFactory) -> Compile:
    """Compiles an operator's ``cuda.cu`` with macros, once however often it is asked for."""
    folder = tmp_path_factory.mktemp("cuda")

    def compile_one(
        operator: str, defines: Mapping[str, int | float | str]
    ) -> Program | cuda_program.DeviceCode:
        path = KERNELS / operator / "cuda.cu"
        if cuda_program.WANTED:
            return cuda_program.program(path, defines)
        return Program(path, defines, folder)

    return compile_one
