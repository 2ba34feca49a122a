"""Built programs and verdicts, kept on the device between loads."""

from __future__ import annotations

import importlib.util
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import arkinfer
from arkinfer.errors import ArkInferError
from tests.support.manifests import reseal

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
    return [float(x) for x in arkinfer.load(bundle, on="device").session().append([5, 6, 7])[-1]]


def answer(bundle: Path, on: str) -> list[int]:
    """Greedy tokens."""
    model = arkinfer.load(bundle, on=on, activations="fp32")
    generation = model.generate([5, 6, 7], temperature=0.0, max_tokens=8)
    return [piece.token for piece in generation if piece.token is not None]


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


def spoil(bundle: Path, kernel: str) -> None:
    """Let a kernel change the first element of its result, as a driver's fault might."""
    source = (bundle / "kernels.cl").read_text()
    found = re.search(
        rf"__kernel void {kernel}_\d+_kernel\(([^)]*)\) {{\n(.*?)\n}}\n", source, re.S
    )
    assert found is not None
    pointers = re.findall(r"__global (float|uint)\* restrict (\w+)_ptr", found.group(1))
    kind, name = next(p for p in pointers if p[1] in ("y", "key"))
    change = "+= 0.5f" if kind == "float" else "^= 0x4000u"
    wrong = (
        "\n  barrier(CLK_GLOBAL_MEM_FENCE);\n"
        "  if (get_global_id(0) + get_global_id(1) + get_global_id(2) == 0) "
        f"{name}_ptr[0] {change};"
    )
    end = found.end(2)
    reseal(bundle, {"kernels.cl": (source[:end] + wrong + source[end:]).encode()})


@pytest.mark.parametrize("kernel", ["rms_norm", "cache_append"])
def test_a_wrong_kernel_is_never_used(
    kernel: str, bundle: Path, tmp_path: Path, cache: Path
) -> None:
    copied = tmp_path / "wrong.ark"
    shutil.copytree(bundle, copied)
    spoil(copied, kernel)
    says = rf"failed the self-test: launches.json: body\[\d+\] .*{kernel}_\d+_kernel.* differs from"
    with pytest.raises(ArkInferError, match=says):
        arkinfer.load(copied, on="device").session()
    [verdict] = cache.glob("opencl-verdict-*")
    first = verdict.stat().st_ino
    with pytest.raises(ArkInferError, match=says):  # as it was found the first time
        arkinfer.load(copied, on="device").session()
    choice = arkinfer.load(copied).session().choice
    assert choice is not None and choice.on == "cpu"
    assert re.search(says, choice.why) and choice.device
    assert not list(cache.glob("choice-*")), "nothing was measured"
    assert answer(copied, "faster") == answer(bundle, "device") == answer(bundle, "cpu")
    assert verdict.stat().st_ino == first


def test_a_verdict_is_kept_and_used_while_it_is_sound(bundle: Path, cache: Path) -> None:
    logits(bundle)
    [verdict] = cache.glob("opencl-verdict-*")
    first = verdict.stat().st_ino
    logits(bundle)
    assert verdict.stat().st_ino == first, "it was tested again"
    verdict.write_bytes(verdict.read_bytes()[:-3])
    logits(bundle)
    assert verdict.stat().st_ino != first
