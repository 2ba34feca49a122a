"""rms_norm in CUDA C++, under emulation, against numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from arkinfer.backends._steps.plan import Buffer, View
from arkinfer.kernels.rms_norm import cuda
from arkinfer.kernels.rms_norm.reference import rms_norm


@pytest.mark.parametrize(("columns", "around"), [(4096, 8), (100, 4), (130, 0), (1, 5)])
def test_rms_norm(compile_cuda: Any, columns: int, around: int) -> None:
    rng = np.random.default_rng(columns)
    stride = columns + 2 * around
    x = rng.standard_normal((3, stride)).astype(np.float32)
    weight = rng.standard_normal(columns).astype(np.float32)
    rows = View(Buffer("buffer", stride), around, columns)
    y = np.full_like(x, np.nan)
    program = compile_cuda("rms_norm", cuda.macros(rows, rows, 1e-5))
    found = program.run("rms_norm", [x, weight, y], (3, 1, 1), cuda.LANES)[-1]
    expected = rms_norm(x[:, around : around + columns], weight, 1e-5)
    inner = found[:, around : around + columns]
    assert np.abs(inner - expected).max() < 2e-6 * np.abs(expected).max()
    assert np.isnan(found[:, :around]).all() and np.isnan(found[:, around + columns :]).all()
