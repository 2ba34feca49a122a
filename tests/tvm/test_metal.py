"""Metal bundles: their source and launches are checked by a program, the launcher is parsed.

Apple's tools compiled and ran none of it; test_kernels.py runs the kernels' text on the CPU.
"""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import arkinfer
from arkinfer import devices
from arkinfer.bundle import Bundle
from arkinfer.errors import ArkInferError, LoweringError
from tests.support.tiny_models import SMALL_SPARSE
from tests.support.two_backends import compare_whole

pytestmark = pytest.mark.platform
if importlib.util.find_spec("tvm") is None:
    pytest.skip("needs TVM: pip install 'arkinfer[tvm]'", allow_module_level=True)

from arkinfer.backends.metal import source  # noqa: E402
from arkinfer.kernels.rms_norm.tir import rms_norm  # noqa: E402
from arkinfer.kernels.rope.tir import rope  # noqa: E402
from arkinfer.tir.emit import Emitted, device_target, emit  # noqa: E402
from arkinfer.tir.loops import Loops, Rows  # noqa: E402
from tests.support.metal_model import MetalOnCpu  # noqa: E402
from tests.support.metal_runner import compiler  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]


CHECKPOINTS: dict[str, Any] = {
    "sparse": ("minicpm4.1-8b", SMALL_SPARSE),
    "dense": ("minicpm4-0.5b", None),
}


@pytest.fixture(scope="module", params=["sparse apple-m1", "dense apple-a17-pro"])
def bundle(
    request: pytest.FixtureRequest,
    tiny_checkpoint: Callable[..., Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Path, str]:
    """A tiny model compiled for a profile, and the profile's name."""
    form, target = request.param.split()
    kind, sparse = CHECKPOINTS[form]
    checkpoint = tiny_checkpoint(kind, sparse=sparse)
    output = tmp_path_factory.mktemp("metal") / "a.ark"
    options: dict[str, Any] = {"context": 512, "chunk": 32, "quant": "w4g32"}
    return arkinfer.compile(checkpoint, target=target, output=output, **options).path, target


def test_a_bundle_is_whole(bundle: tuple[Path, str]) -> None:
    """One entry point per kernel, and arguments, threads and memory as the launches say."""
    path, target = bundle
    entries = source.entries((path / "kernels.metal").read_text())
    table = json.loads((path / "launches.json").read_text())
    launches = [launch for s in table["body"] + table["head"] for launch in s["launches"]]
    assert {launch["kernel"] for launch in launches} == entries.keys()
    limits = devices.get(target).limits
    for launch in launches:
        entry = entries[launch["kernel"]]
        scalars = [a["scalar"] for a in launch["arguments"] if "scalar" in a]
        assert tuple(scalars) == entry.scalars
        assert len(launch["arguments"]) - len(scalars) == len(entry.buffers) <= 30
        assert 0 < launch["lanes"] <= limits["work_group"]
        assert entry.threadgroup_bytes <= limits["shared_memory"]
    assert arkinfer.load(path).info.backend == "metal"


@pytest.mark.skipif(compiler() is None, reason="needs a C++ compiler")
def test_a_whole_model_on_the_cpu(
    bundle: tuple[Path, str], tiny_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    """The emitted text and its launches, run by a stand-in for the launcher."""
    opened = Bundle.open(bundle[0])
    sparse = opened.manifest.model.sparse is not None
    kind, settings = CHECKPOINTS["sparse" if sparse else "dense"]
    source_folder = tiny_checkpoint(kind, sparse=settings)
    options: dict[str, Any] = {"context": 512, "chunk": 32, "quant": "w4g32"}
    cpu = arkinfer.compile(source_folder, output=tmp_path / "cpu.ark", **options)
    session = arkinfer.load(cpu.path, activations="fp32").session()
    compare_whole([MetalOnCpu(opened, 512), session], sparse, 5e-3)


@pytest.mark.skipif(sys.platform == "darwin", reason="this system has Metal")
def test_other_systems_refuse_it(bundle: tuple[Path, str]) -> None:
    with pytest.raises(ArkInferError, match="compiled for Metal.*expected macOS or iOS"):
        arkinfer.load(bundle[0]).session()


@pytest.fixture(scope="module")
def emitted() -> Emitted:
    rows = Rows(128, 128)
    functions = {
        "norm": rms_norm(Loops("metal"), rows, rows, 1e-6),
        "rope": rope(Loops("metal"), rows, 64),
    }
    return emit(functions, device_target("metal"))


def test_one_text_holds_all_kernels(emitted: Emitted) -> None:
    text = source.join(emitted.source)
    source.check(text, emitted.kernels)
    assert text.count("union __TVMArgUnion") == 1
    entry = source.entries(text)["rope_kernel"]
    assert (entry.buffers, entry.elements) == (("table", "x"), ("float", "float"))
    assert (entry.scalars, entry.threadgroup_bytes) == (("tokens",), 0)


@pytest.mark.parametrize(
    ("pattern", "text", "says"),
    [
        (r"\}\n*\Z", "", "do not close"),
        (r"kernel void rope_kernel", "kernel void other_kernel", "entry points"),
        (r"kernel void rope_kernel", "kernel void norm_kernel", "two entry points norm_kernel"),
        (r"buffer\(1\)", "buffer(2)", "in another way"),
        (r"device float\* x_ptr", "device half* x_ptr", "in another way"),
        (r"x_ptr", "z_ptr", "z, .*expected .*x"),
        (r"int tokens\[2\]", "int total[2]", "total; expected"),
        (r"threadgroup float squares\[64\]", "threadgroup float squares[65]", "260 bytes"),
        (r"threadgroup float squares", "threadgroup half squares", "memory of another type"),
        (r"struct rope_kernel_args_t", "struct other_args_t", "memory of another type"),
    ],
)
def test_source_that_differs_is_refused(
    pattern: str, text: str, says: str, emitted: Emitted
) -> None:
    whole = source.join(emitted.source)
    changed = re.sub(pattern, text, whole, count=0 if pattern == "x_ptr" else 1)
    assert changed != whole
    with pytest.raises(LoweringError, match=says):
        source.check(changed, emitted.kernels)
    with pytest.raises(LoweringError, match="begins in another way"):
        source.join(emitted.source.replace("union", "struct"))


@pytest.mark.parametrize("name", ["metal_context.mm", "metal_run.mm"])
def test_the_launcher_parses(name: str) -> None:
    """Objective-C++ against declarations of what it uses of Metal."""
    clang = shutil.which("clang++") or shutil.which("clang++-15")  # PoCL's package brings 15
    if clang is None:
        pytest.skip("needs clang (Debian's pocl-opencl-icd brings it)")
    flags = ["-x", "objective-c++", "-std=c++17", "-fobjc-arc", "-fobjc-runtime=macosx-13"]
    flags += ["-fblocks", "-fsyntax-only", "-Wall", "-Wextra", "-Werror"]
    for folder in ("native/src", "native/include", "tests/support/metal_stub"):
        flags += ["-I", str(ROOT / folder)]
    command = [clang, *flags, str(ROOT / "native" / "src" / "device" / name)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
