"""Backends are found by their file's name, or by entry point."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from arkinfer import backends
from arkinfer.errors import UnknownBackendError

ROOT = Path(__file__).parents[2]

EMPTY_BACKEND = '''
"""A new backend, as its author starts it: it compiles, and answers with zeros."""

from collections.abc import Sequence

import numpy as np

from arkinfer.backends._sequence import TokenSequence


class EmptyExecutor(TokenSequence):
    def __init__(self, model, context):
        super().__init__(model.vocab_size, context)
        self._kv_heads = model.num_kv_heads

    def append(self, tokens: Sequence[int], all_logits: bool = False):
        self.check(tokens)
        self._length += len(tokens)
        return np.zeros((len(tokens) if all_logits else 1, self.vocab_size), np.float32)

    def selected_blocks(self, layer: int):
        return [np.zeros(1, np.int32)] * self._kv_heads


class EmptyBackend:
    name = "empty"
    needs = ()

    def compile(self, graph, checkpoint, device, options, writer):
        with writer.open_file("weights.txt") as file:
            file.write("\\n".join(graph.weights).encode())

    def executor(self, bundle, options):
        return EmptyExecutor(bundle.manifest.model, options.context)


BACKEND = EmptyBackend()
'''


def test_names_and_get() -> None:
    names = backends.names()
    assert {"null", "onnxruntime"} <= set(names) and names == sorted(names)
    assert not [name for name in names if name.startswith("_")]
    for name in names:
        assert backends.get(name).name == name


def test_unknown_backend_lists_the_known() -> None:
    with pytest.raises(UnknownBackendError, match="abacus.*null, onnxruntime"):
        backends.get("abacus")
    with pytest.raises(UnknownBackendError):
        backends.get("_sequence")


def test_a_file_without_backend_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "hollow.py").write_text("")
    monkeypatch.setattr(backends, "__path__", [*backends.__path__, str(tmp_path)])
    with pytest.raises(UnknownBackendError, match="hollow.*BACKEND"):
        backends.get("hollow")


def test_a_new_file_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "empty.py").write_text(EMPTY_BACKEND)
    monkeypatch.setattr(backends, "__path__", [*backends.__path__, str(tmp_path)])
    assert "empty" in backends.names()
    assert backends.get("empty").name == "empty"


def test_the_null_tests_pick_up_a_new_backend(tmp_path: Path) -> None:
    """One file of fewer than 60 lines, installed as somebody else's package, is tested."""
    assert len(EMPTY_BACKEND.strip().splitlines()) < 60
    (tmp_path / "somebodys_backend.py").write_text(EMPTY_BACKEND)
    info = tmp_path / "somebodys_backend-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: somebodys-backend\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{backends.GROUP}]\nempty = somebodys_backend\n")
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "tests/null/test_contract.py", "-k", "empty"]
        + ["-q", "-p", "no:cacheprovider"],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert "20 passed" in result.stdout
