"""Whole models on OpenCL, through the native launcher, against the cpu backend."""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import arkinfer
from arkinfer import devices
from arkinfer.errors import ArkInferError, InvalidBundleError, InvalidOptionError
from arkinfer.tir.schedule import schedule_of
from tests.support.manifests import reseal
from tests.support.profiles import opencl_profile
from tests.support.tiny_models import SMALL_SPARSE
from tests.support.two_backends import (
    HALF_PRODUCTS,
    TINY_MODELS,
    TOLERANCE,
    compare_whole,
    follow,
    sessions,
)

pytestmark = pytest.mark.platform
if importlib.util.find_spec("tvm") is None:
    pytest.skip("needs TVM: pip install 'arkinfer[tvm]'", allow_module_level=True)

from tests.support.tir_runner import PLATFORM, PLATFORMS, TARGETS, opencl_platforms  # noqa: E402

if PLATFORM not in opencl_platforms():
    pytest.skip(
        f"needs {PLATFORM} (PoCL is Debian's pocl-opencl-icd) and pyopencl", allow_module_level=True
    )


TARGET = TARGETS[PLATFORM]
# What Adreno and Mali do without extensions, which PoCL runs too, by the model's quantization.
PARTS = {"w4g32": ["texture_cache"], "w8g32": ["shared_memory_in_ram"]}
HALVES = schedule_of(devices.get(TARGET)).half


@pytest.fixture(autouse=True)
def platform(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    monkeypatch.setenv("ARK_OPENCL_DEVICE", PLATFORMS[PLATFORM])
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(scope="module")
def llama(tiny_checkpoint: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small bundle, not to be changed."""
    output = tmp_path_factory.mktemp("llama") / "a.ark"
    source = tiny_checkpoint("llama")
    return arkinfer.compile(source, target="opencl", context=128, chunk=16, output=output).path


@TINY_MODELS
def test_tiny_models(
    kind: str, kv: str, quant: str, tiny_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    sparse = SMALL_SPARSE if kind.endswith("8b") else None
    source = tiny_checkpoint(kind, sparse=sparse)
    target = TARGET
    if PLATFORM == "PoCL" and quant in PARTS:
        target = opencl_profile(tmp_path / "parts.toml", PARTS[quant], traits={"load_bytes": 16})
    both = sessions(target, source, tmp_path, kv, quant)
    # Weights in float keep float32 products, and so do the kernels of the generic schedule.
    if HALVES and quant != "none":
        compare_whole(both, sparse is not None, HALF_PRODUCTS, others=0.02)
    else:
        compare_whole(both, sparse is not None, TOLERANCE[kv])


def test_smollm2(smollm2_gguf: Path, tmp_path: Path) -> None:
    both = sessions(TARGET, smollm2_gguf, tmp_path, "fp32", "keep")
    model = arkinfer.load(tmp_path / f"{TARGET}.ark")
    prompt = model.encode("The capital of France is")
    most = HALF_PRODUCTS if HALVES else TOLERANCE["fp32"]
    follow(both, [session.append(prompt)[-1] for session in both], 12, most)


def test_memory_and_steps_are_reported(llama: Path) -> None:
    model = arkinfer.load(llama, on="device")
    session = model.session()
    with session.trace() as steps:
        session.append([5, 6, 7])
    kernels = [step.kernel for step in steps]
    assert kernels[0] == "embed" and kernels[-1] == "matmul" and "attention" in kernels
    assert all(step.seconds > 0 for step in steps)
    assert all(np.isfinite(step.values).all() for step in steps if step.values is not None)
    assert model.info.promised_bytes is not None
    assert model.info.manifest.memory.arena > 0


def test_what_a_device_cannot_do_is_refused(
    llama: Path,
    tiny_checkpoint: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(InvalidOptionError, match="fp16 or fp32, as devices"):
        arkinfer.compile(
            tiny_checkpoint("llama"), target="opencl", kv="int8", output=tmp_path / "a.ark"
        )
    with pytest.raises(InvalidOptionError, match="KV cache type"):
        arkinfer.load(llama, kv="fp32").session()
    session = arkinfer.load(llama, on="device").session()
    with pytest.raises(ArkInferError, match="a draft tree that branches"):
        session.verify_tree([5, 6, 7], [-1, 0, 0])
    with pytest.raises(ArkInferError, match="random numbers"):
        session.fill_random(16)
    monkeypatch.setenv("ARK_OPENCL_DEVICE", "no such device")
    with pytest.raises(ArkInferError, match="no OpenCL device like 'no such device'"):
        arkinfer.load(llama).session()


def test_a_source_that_does_not_build_carries_the_log(llama: Path, tmp_path: Path) -> None:
    copied = tmp_path / "broken.ark"
    shutil.copytree(llama, copied)
    reseal(copied, {"kernels.cl": b"__kernel void broken(int x) { y = x; }"})
    with pytest.raises(ArkInferError, match="undeclared identifier"):
        arkinfer.load(copied, on="device").session()


def test_an_extension_that_is_not_there_is_named(
    tiny_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    source = tiny_checkpoint("llama")
    bundle = arkinfer.compile(source, "adreno", context=64, output=tmp_path / "a.ark").path
    says = "has no cl_khr_(fp16|subgroups).*extension.*--target opencl"
    with pytest.raises(ArkInferError, match=says):
        arkinfer.load(bundle, on="device").session()


def _set(place: list[Any], value: Any) -> Callable[[Any], None]:
    def change(plan: Any) -> None:
        for key in place[:-1]:
            plan = plan[key]
        plan[place[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (_set(["version"], 2), "another version"),
        (_set(["chunk"], 7), "chunk"),
        (_set(["kv"], "int4"), "kv"),
        (_set(["slots", 0], ["^", 1, 2]), "the operator '\\^'"),
        (_set(["slots", 0], "temperature"), "tokens, past, total or capacity"),
        (_set(["weights", 0, "offset"], 1 << 40), "leaves weights.bin"),
        (_set(["weights", 0, "offset"], 4), "multiple of 64"),
        (_set(["logits"], 99), "logits"),
        (_set(["head_columns"], 1 << 30), "too small"),
        (_set(["body", 0, "launches", 0, "arguments", 0], {"weight": "none"}), "'none'"),
        (_set(["body", 0, "launches", 0, "groups"], [1]), "three sizes"),
        (_set(["body", 0, "launches", 0, "arguments", 0, "as"], "texture"), "'texture'"),
        (_set(["extensions"], [1]), "extensions"),
        (_set(["body", 0, "output", "columns"], 1 << 20), "columns"),
    ],
)
def test_launches_that_lie_are_refused(
    change: Callable[[Any], None],
    says: str,
    llama: Path,
    tmp_path: Path,
) -> None:
    copied = tmp_path / "lying.ark"
    shutil.copytree(llama, copied)
    plan = json.loads((copied / "launches.json").read_text())
    change(plan)
    reseal(copied, {"launches.json": json.dumps(plan).encode()})
    with pytest.raises(InvalidBundleError, match=says):
        arkinfer.load(copied)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (_set(["body", 0, "launches", 0, "arguments"], []), "0 arguments"),
        (_set(["body", 0, "launches", 0, "kernel"], "none"), "CL_INVALID_KERNEL_NAME"),
        (_set(["slots", 0], ["-", 1, 2]), "a size of -1"),
    ],
)
def test_launches_that_do_not_fit_the_source_are_refused(
    change: Callable[[Any], None], says: str, llama: Path, tmp_path: Path
) -> None:
    copied = tmp_path / "lying.ark"
    shutil.copytree(llama, copied)
    plan = json.loads((copied / "launches.json").read_text())
    plan["slots"].insert(0, 4)  # one that nothing uses
    for step in plan["body"] + plan["head"]:
        step.get("output", {"slot": 0})["slot"] += 1
        for argument in [a for launch in step["launches"] for a in launch["arguments"]]:
            if "slot" in argument:
                argument["slot"] += 1
    for name in ("token_ids", "head_input", "head_rows", "logits"):
        plan[name] += 1
    change(plan)
    reseal(copied, {"launches.json": json.dumps(plan).encode()})
    with pytest.raises(ArkInferError, match=says):
        arkinfer.load(copied, on="device").session()
