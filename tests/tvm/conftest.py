"""Bundles that several modules look at."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import arkinfer


@pytest.fixture(scope="session")
def compiled_llama(
    tiny_checkpoint: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A small bundle with kernels that TVM compiled for AVX2; not to be changed."""
    return arkinfer.compile(
        tiny_checkpoint("llama"),
        target="cpu",
        kernels="tvm:avx2",
        context=128,
        chunk=16,
        output=tmp_path_factory.mktemp("compiled") / "a.ark",
    ).path
