"""The native library's kernels, called in this process."""

from __future__ import annotations

import pytest

from tests.support.kernel_runner import LibraryRunner
from tests.support.native_build import build


@pytest.fixture(scope="session")
def kernels() -> LibraryRunner:
    """Single kernels of the release build."""
    return LibraryRunner(build("release", target="arkinfer") / "libarkinfer.so")


@pytest.fixture(scope="session")
def isas(kernels: LibraryRunner) -> list[str]:
    """Every kernel set that this CPU runs."""
    return kernels.isas()
