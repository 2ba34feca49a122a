"""The kernels under address, undefined-behaviour and thread sanitizers, on exact buffers."""

from __future__ import annotations

import pytest

from tests.support.kernel_checks import run_checks, small_checks
from tests.support.kernel_runner import ToolRunner
from tests.support.native_build import build

pytestmark = pytest.mark.platform


@pytest.mark.parametrize("sanitizer", ["address", "thread"])
def test_kernels(sanitizer: str) -> None:
    runner = ToolRunner([build(sanitizer, target="kernel_runner") / "kernel_runner"])
    run_checks(runner, small_checks(6), runner.isas(), (1, 4))
