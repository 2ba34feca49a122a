"""Built programs and verdicts, kept on the device between loads."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

import pytest

import arkinfer

pytestmark = pytest.mark.platform
if importlib.util.find_spec("tvm") is None:
    pytest.skip("needs TVM: pip install 'arkinfer[tvm]'", allow_module_level=True)

from tests.support.tir_runner import PLATFORM, PLATFORMS, opencl_platforms  # noqa: E402

if PLATFORM not in opencl_platforms():
    pytest.skip(
        f"needs {PLATFORM} (PoCL is Debian's pocl-opencl-icd) and pyopencl", allow_module_level=True
    )


@pytest.fixture(scope="module")
def bundle(tiny_checkpoint: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Not to be changed."""
    output = tmp_path_factory.mktemp("cache") / "a.ark"
    return arkinfer.compile(
        tiny_checkpoint("llama"), "opencl", context=64, chunk=16, output=output
    ).path


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty one."""
    monkeypatch.setenv("ARK_OPENCL_DEVICE", PLATFORMS[PLATFORM])
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "arkinfer"


def logits(bundle: Path) -> list[float]:
    return [float(x) for x in arkinfer.load(bundle).session().append([5, 6, 7])[-1]]


def test_a_built_program_is_kept_and_used_while_it_is_sound(bundle: Path, cache: Path) -> None:
    expected = logits(bundle)
    found = list(cache.glob("opencl-program-*"))
    if PLATFORM == "PoCL":
        assert not found, "PoCL keeps its own"
        return
    [program] = found
    whole, first = program.read_bytes(), program.stat()
    assert first.st_mode & 0o077 == 0
    assert logits(bundle) == expected
    assert program.stat().st_ino == first.st_ino, "it was built again"
    program.write_bytes(whole[: len(whole) // 2])
    assert logits(bundle) == expected
    assert program.stat().st_ino != first.st_ino and program.read_bytes()[:17] == whole[:17]
    assert len(list(cache.glob("opencl-program-*"))) == 1


def test_a_cache_that_cannot_be_written_is_done_without(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    expected = logits(bundle)
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert logits(bundle) == expected
