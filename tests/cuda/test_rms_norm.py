"""rms_norm in CUDA C++, under emulation, against numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from arkinfer.kernels.rms_norm.reference import rms_norm


@pytest.mark.parametrize(("columns", "around"), [(4096, 8), (100, 4), (130, 0), (1, 5)])
def test_rms_norm(compile_cuda: Any, columns: int, around: int) -> None:
    rng = np.random.default_rng(columns)
    stride = columns + 2 * around
    x = rng.standard_normal((3, stride)).astype(np.float32)
    weight = rng.standard_normal(columns).astype(np.float32)
    defines = {
        "ARK_COLUMNS": columns,
        "ARK_X_STRIDE": stride,
        "ARK_X_START": around,
        "ARK_Y_STRIDE": stride,
        "ARK_Y_START": around,
        "ARK_EPSILON": 1e-5,
    }
    y = np.full_like(x, np.nan)
    program = compile_cuda("rms_norm", defines)
    found = program.run("rms_norm", [x, weight, y], (3, 1, 1), 256)[-1]
    expected = rms_norm(x[:, around : around + columns], weight, 1e-5)
    inner = found[:, around : around + columns]
    assert np.abs(inner - expected).max() < 2e-6 * np.abs(expected).max()
    assert np.isnan(found[:, :around]).all() and np.isnan(found[:, around + columns :]).all()
