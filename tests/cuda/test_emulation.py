"""The emulation itself: its instructions against numpy, and the mistakes that it must notice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.cuda_on_cpu import CudaOnCpuError, Program

INSTRUCTIONS = '#include "common/instructions.cuh"\n'

# A tile [16, 16] by [16, 8], and its first matrix as ldmatrix reads it.
MULTIPLY = """
extern "C" __global__ void product(const uint32_t* a, const uint32_t* b, float* sums) {
    __shared__ uint4 rows[48], turned[16];
    const int lane = threadIdx.x;
    ark::copy_async(rows + lane / 2 * 3 + lane % 2, a + lane * 4, true);
    ark::copies_commit();
    ark::copy_async(turned + lane % 16, b + lane % 16 * 4, true);
    ark::copies_commit();
    ark::copies_wait<0>();
    __syncthreads();
    uint32_t left[4], right[4];
    ark::load_matrices(left, rows + lane % 16 * 3 + lane / 16);
    ark::load_matrices_turned(right, turned + lane % 16);
    const uint32_t two[2] = {right[0], right[1]};
    float own[4] = {0, 0, 0, 0};
    ark::multiply(own, left, two);
    for (int i = 0; i < 4; ++i)
        sums[(lane / 4 + i / 2 * 8) * 8 + lane % 4 * 2 + i % 2] = own[i];
}
"""

HALVES = """
extern "C" __global__ void halves(const float* x, uint32_t* y) {
    y[threadIdx.x] = ark::half2_of(x[2 * threadIdx.x], x[2 * threadIdx.x + 1]);
}
"""

MISTAKES = {
    "depends on the order": """
        __shared__ float all[64];
        all[threadIdx.x] = x[threadIdx.x];
        y[threadIdx.x] = all[63 - threadIdx.x];""",
    "different collectives": """
        const bool odd = threadIdx.x % 2 != 0;
        y[threadIdx.x] = odd ? ark::from_lane(x[0], 0) : ark::from_lane_xor(x[0], 1);""",
    "wait for others": """
        if (threadIdx.x < 40) y[threadIdx.x] = ark::from_lane_xor(x[0], 1);
        else __syncthreads();""",
    "have ended": """
        if (threadIdx.x % 32 < 5) return;
        y[threadIdx.x] = ark::from_lane_xor(x[0], 1);""",
    "share banks": """
        __shared__ uint4 all[32];
        uint32_t words[4];
        all[threadIdx.x % 32] = make_uint4(1, 2, 3, 4);
        ark::load_matrices(words, all + threadIdx.x % 16 * 2);
        y[threadIdx.x] = x[0] + words[0];""",
    "16 does not divide": """
        __shared__ uint4 all[64];
        ark::copy_async(all, x + 1, true);
        y[0] = 0;""",
}


def program(tmp_path: Path, text: str) -> Program:
    path = tmp_path / "kernels" / "cuda.cu"
    path.parent.mkdir()
    path.write_text(INSTRUCTIONS + text)
    return Program(path, {}, tmp_path)


def test_product_of_tiles(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    a = rng.standard_normal((16, 16)).astype(np.float16)
    b = rng.standard_normal((16, 8)).astype(np.float16)
    words: Any = [a.view(np.uint32), b.view(np.uint32), np.zeros((16, 8), np.float32)]
    sums = program(tmp_path, MULTIPLY).run("product", words, (1, 1, 1), 32)[-1]
    assert np.abs(sums - a.astype(np.float64) @ b.astype(np.float64)).max() < 1e-5


def test_halves_are_rounded_as_numpy_rounds(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    x = (rng.standard_normal(512) * 2.0 ** rng.integers(-28, 15, 512)).astype(np.float32)
    x[:6] = [65504, -70000, 2.0**-24, 2.0**-25, 2049, 2051]
    given = [x, np.zeros(256, np.uint32)]
    found = program(tmp_path, HALVES).run("halves", given, (1, 1, 1), 256)[-1]
    assert np.array_equal(found.view(np.float16), np.clip(x, -65504, 65504).astype(np.float16))


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistake_is_noticed(tmp_path: Path, mistake: str) -> None:
    body = f'extern "C" __global__ void wrong(const float* x, float* y) {{{MISTAKES[mistake]}}}'
    given = [np.arange(64, dtype=np.float32), np.zeros(64, np.float32)]
    with pytest.raises(CudaOnCpuError, match=mistake):
        program(tmp_path, body).run("wrong", given, (1, 1, 1), 64)


def test_unwritten_shared_memory_is_nan(tmp_path: Path) -> None:
    body = """extern "C" __global__ void read(float* y) {
        __shared__ float all[32];
        if (blockIdx.x == 0) all[threadIdx.x] = 1;
        y[blockIdx.x * 32 + threadIdx.x] = all[threadIdx.x];
    }"""
    found = program(tmp_path, body).run("read", [np.zeros(64, np.float32)], (2, 1, 1), 32)[0]
    assert (found[:32] == 1).all() and np.isnan(found[32:]).all()
