"""The contract, over every backend that needs nothing special."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.null.contract import check_bundle, check_executor, everywhere
from tests.support.tiny_models import SMALL_SPARSE

MODELS = {
    "minicpm4-8b": {"sparse": SMALL_SPARSE, "dtype": "bf16"},
    "minicpm4.1-8b": {"shards": 2, "dtype": "f16"},
    "minicpm4-0.5b": {},
    "llama": {},
}


@pytest.mark.parametrize("quant", ["none", "w4g32", "w8g64z", "ternary", "ternaryg32"])
@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("backend", everywhere())
def test_backend(
    backend: str, kind: str, quant: str, tiny_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    checkpoint = tiny_checkpoint(kind, **MODELS[kind])
    bundle = check_bundle(backend, checkpoint, quant, tmp_path)
    check_executor(backend, bundle)
