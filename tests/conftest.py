"""Fixtures that several groups of tests share; everything slow is made once per session."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.support import smollm2
from tests.support.tiny_models import write_tiny_hf

if TYPE_CHECKING:
    from arkinfer.bundle import Bundle


@pytest.fixture(scope="session")
def smollm2_gguf() -> Path:
    """The GGUF file of SmolLM2-135M-Instruct (Q4_1), a real language model."""
    return smollm2.path()


@pytest.fixture(scope="session")
def smollm2_bundle(smollm2_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SmolLM2-135M-Instruct compiled for the CPU with its own bits kept; 4,096 tokens."""
    import arkinfer

    output = tmp_path_factory.mktemp("smollm2") / "smollm2.ark"
    return arkinfer.compile(
        smollm2_gguf, target="cpu", quant="keep", context=4096, output=output
    ).path


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """``tiny_checkpoint(kind, **options)``: a folder from ``write_tiny_hf``, once per session."""
    made: dict[str, Path] = {}

    def make(kind: str, **options: Any) -> Path:
        key = repr((kind, sorted(options.items())))
        if key not in made:
            made[key] = write_tiny_hf(
                tmp_path_factory.mktemp("tiny") / kind.replace(".", "_"), kind, **options
            )
        return made[key]

    return make


@pytest.fixture(scope="session")
def tiny_bundle(
    tiny_checkpoint: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Bundle]:
    """``tiny_bundle(kind, compile={...}, **options)``: a compiled tiny model, once per session.

    ``compile`` holds arguments of :func:`arkinfer.compile`; the defaults are
    the CPU, float weights and a context of 512 tokens.
    """
    import arkinfer

    made: dict[str, Bundle] = {}

    def make(kind: str, compile: dict[str, Any] | None = None, **options: Any) -> Bundle:
        arguments = {"target": "cpu", "quant": "none", "context": 512} | (compile or {})
        key = repr((kind, sorted(arguments.items()), sorted(options.items())))
        if key not in made:
            output = tmp_path_factory.mktemp("bundle") / "tiny.ark"
            made[key] = arkinfer.compile(
                tiny_checkpoint(kind, **options), output=output, **arguments
            )
        return made[key]

    return make
