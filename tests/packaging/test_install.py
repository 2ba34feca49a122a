"""The wheel in an environment without extras: it runs bundles and cannot compile them."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from arkinfer.bundle import Bundle


def arkinfer(python: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """The installed command, started outside the checkout."""
    command = [str(python.parent / "arkinfer"), *map(str, arguments)]
    return subprocess.run(command, cwd=python.parent, capture_output=True, text=True, check=False)


def test_base_install_runs_a_bundle(bare_python: Path, tiny_bundle: Callable[..., Bundle]) -> None:
    bundle = tiny_bundle("minicpm4.1-8b").path
    done = arkinfer(
        bare_python, "run", bundle, "hello", "--temperature", "0", "--max-tokens", "8", "--json"
    )
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert 1 <= len(answer["token_ids"]) <= 8
    assert answer["finish_reason"] in ("length", "stop")


def test_base_install_inspects_a_bundle(
    bare_python: Path, tiny_bundle: Callable[..., Bundle]
) -> None:
    done = arkinfer(bare_python, "inspect", tiny_bundle("minicpm4.1-8b").path, "--json")
    assert done.returncode == 0, done.stderr
    json.loads(done.stdout)


@pytest.mark.parametrize("command", ["compile", "verify", "backend"])
def test_what_needs_an_extra_names_it(
    bare_python: Path,
    tiny_checkpoint: Callable[..., Path],
    tiny_bundle: Callable[..., Bundle],
    tmp_path: Path,
    command: str,
) -> None:
    checkpoint = tiny_checkpoint("minicpm4.1-8b")
    bundle = tiny_bundle("minicpm4.1-8b").path
    arguments: dict[str, list[str | Path]] = {
        "compile": ["compile", checkpoint, "-o", tmp_path / "x.ark"],
        "verify": ["verify", bundle, "--against", checkpoint],
        "backend": ["run", bundle, "hello", "--backend", "onnxruntime"],
    }
    done = arkinfer(bare_python, *arguments[command])
    assert done.returncode == 1
    assert done.stderr.startswith("error: MissingExtra: ")
    assert len(done.stderr.strip().splitlines()) == 1
    assert "pip install 'arkinfer[compile]'" in done.stderr
    assert not (tmp_path / "x.ark").exists()


def test_base_install_has_no_extra(bare_python: Path) -> None:
    """Otherwise the tests above would prove nothing."""
    code = (
        "from importlib.util import find_spec; print(find_spec('onnx'), find_spec('onnxruntime'))"
    )
    done = subprocess.run(
        [str(bare_python), "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "None None"
