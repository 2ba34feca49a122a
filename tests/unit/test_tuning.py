"""Tables of measured kernels, as far as they need no compiled ones."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

import pytest

import arkinfer
from arkinfer import tune, tuning
from arkinfer.bundle import Bundle
from arkinfer.errors import ArkInferError, InvalidOptionError

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "bundles" / "v1.ark"


def test_a_bundle_without_kernels_has_nothing_to_tune() -> None:
    bundle = Bundle.open(GOLDEN)
    assert tuning.state(bundle) == tuning.notice(bundle) == ""
    with pytest.raises(InvalidOptionError, match="--kernels tvm"):
        tune.measure(bundle, tune.Settings())


def test_kernels_are_refused_by_name(tiny_checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    source = tiny_checkpoint("llama")
    with pytest.raises(InvalidOptionError, match="backend null"):
        arkinfer.compile(source, target="null", kernels="tvm", output=tmp_path / "a.ark")
    missing = importlib.util.find_spec("tvm") is None
    says = r"arkinfer\[tvm\]" if missing else "tvm:avx2"
    with pytest.raises(ArkInferError, match=says):
        arkinfer.compile(source, kernels="tvm:mmx", output=tmp_path / "a.ark")
    assert not (tmp_path / "a.ark").exists()
    with pytest.raises(InvalidOptionError, match="'fast'"):
        arkinfer.load(GOLDEN, kernels="fast")
