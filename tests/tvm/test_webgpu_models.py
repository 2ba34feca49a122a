"""Whole models through wgpu on lavapipe, against the cpu backend."""

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
from arkinfer import extras
from arkinfer.cli.app import main
from arkinfer.errors import (
    DeviceError,
    InvalidBundleError,
    InvalidOptionError,
    MissingExtraError,
)
from tests.support.manifests import reseal
from tests.support.tiny_models import SMALL_SPARSE
from tests.support.two_backends import (
    TINY_MODELS,
    TOLERANCE,
    compare_whole,
    error,
    follow,
    sessions,
)

pytestmark = pytest.mark.platform
for module, extra in (("tvm", "tvm"), ("wgpu", "webgpu")):
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"needs {module}: pip install 'arkinfer[{extra}]'", allow_module_level=True)

import wgpu  # noqa: E402

from arkinfer.backends.webgpu.gpu import open_gpu  # noqa: E402
from arkinfer.backends.webgpu.limits import Limits, check_fits  # noqa: E402

try:
    open_gpu()
except DeviceError:
    pytest.skip("needs a Vulkan driver (Debian's mesa-vulkan-drivers)", allow_module_level=True)


@TINY_MODELS
def test_tiny_models(
    kind: str, kv: str, quant: str, tiny_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    sparse = SMALL_SPARSE if kind.endswith("8b") else None
    source = tiny_checkpoint(kind, sparse=sparse)
    both = sessions("webgpu", source, tmp_path, kv, quant)
    compare_whole(both, sparse is not None, TOLERANCE[kv])


def test_smollm2(smollm2_gguf: Path, tmp_path: Path) -> None:
    both = sessions("webgpu", smollm2_gguf, tmp_path, "fp32", "keep")
    model = arkinfer.load(tmp_path / "webgpu.ark")
    prompt = model.encode("The capital of France is")
    follow(both, [session.append(prompt)[-1] for session in both], 16, TOLERANCE["fp32"])


def small_device(folder: Path, largest: int) -> str:
    """The path of a profile whose buffers hold at most so many bytes."""
    path = folder / "small.toml"
    path.write_text(
        'description = "Small"\ngeneric = true\n[sources]\nsheet = "a sheet"\n'
        '[units.gpu]\nbackend = "webgpu"\narch = "any"\n[units.gpu.limits]\n'
        f'largest_allocation = {{ value = {largest}, source = "sheet" }}\n'
    )
    return str(path)


@pytest.fixture(scope="module")
def llama(tiny_checkpoint: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small bundle, not to be changed, whose embedding fills several buffers."""
    folder = tmp_path_factory.mktemp("llama")
    target, options = small_device(folder, 40960), {"context": 128, "chunk": 16}
    source = tiny_checkpoint("llama")
    return arkinfer.compile(source, target=target, output=folder / "a.ark", **options).path


def test_weights_are_split_over_buffers(
    llama: Path, tiny_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    weights = json.loads((llama / "dispatches.json").read_text())["weights"]
    embedding = [w["bytes"] for w in weights if w["name"].startswith("model.embed_tokens")]
    assert len(embedding) > 1 and max(embedding) <= 40960
    cpu = arkinfer.compile(tiny_checkpoint("llama"), context=128, output=tmp_path / "cpu.ark")
    both = [arkinfer.load(path, activations="fp32").session() for path in (llama, cpu.path)]
    found, expected = (session.append([3, 319, 70, 128], all_logits=True) for session in both)
    assert error(found, expected) < TOLERANCE["fp16"]


def changed(bundle: Path, folder: Path, change: Callable[[Any], None]) -> Path:
    """A copy whose table of launches was changed and sealed again."""
    copied = folder / "changed.ark"
    shutil.copytree(bundle, copied)
    table = json.loads((copied / "dispatches.json").read_text())
    change(table)
    reseal(copied, {"dispatches.json": json.dumps(table).encode()})
    return copied


def test_command_line(llama: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", str(llama), "hi", "--raw", "--max-tokens", "3", "--temperature", "0"]) == 0
    few = ["--prompt", "4", "--generate", "2", "--repeat", "1", "--json"]
    capsys.readouterr()
    assert main(["bench", str(llama), *few]) == 0
    assert json.loads(capsys.readouterr().out)["decode_tokens_per_s"] > 0


def test_what_cannot_be_is_refused(
    llama: Path,
    tiny_checkpoint: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(InvalidOptionError, match="fp16 or fp32"):
        arkinfer.compile(
            tiny_checkpoint("llama"), target="webgpu", kv="int8", output=tmp_path / "a.ark"
        )
    with pytest.raises(InvalidOptionError, match="KV cache type fp32; expected fp16"):
        arkinfer.load(llama, kv="fp32").session()
    session = arkinfer.load(llama).session()
    with pytest.raises(InvalidOptionError, match="layer 9"):
        session.selected_blocks(9)
    with pytest.raises(InvalidOptionError, match="no token has been appended"):
        session.selected_blocks(0)
    with pytest.raises(InvalidOptionError, match="draft trees"):
        session.verify_tree([5, 6], [-1, 0])
    monkeypatch.setenv("ARK_WEBGPU_DEVICE", "no such device")
    with pytest.raises(DeviceError, match="no WebGPU device like 'no such device'"):
        open_gpu()


def test_without_a_driver_or_wgpu(llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wgpu.gpu, "enumerate_adapters_sync", list)
    with pytest.raises(DeviceError, match="no WebGPU device; expected a GPU with a Vulkan"):
        open_gpu()
    monkeypatch.setitem(extras.EXTRAS, "webgpu", ("a_module_that_is_not_there",))
    with pytest.raises(MissingExtraError, match=r"pip install 'arkinfer\[webgpu\]'"):
        arkinfer.load(llama).session()


def test_a_lost_device_is_named_with_the_step(llama: Path) -> None:
    model = arkinfer.load(llama)
    session = model.session()
    first = session.append([5, 6])
    session.executor._gpu.device.destroy()
    with pytest.raises(DeviceError, match="the step for tokens 2 to 3: .* device is lost"):
        session.append([7, 8])
    assert session.length == 2
    # A new session gets a new device.
    assert np.array_equal(model.session().append([5, 6]), first)


def test_memory_that_runs_out_is_named(llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = arkinfer.load(llama)
    device = model.session().executor._gpu.device

    def refuse(**_: object) -> None:
        raise wgpu.GPUOutOfMemoryError("")

    monkeypatch.setattr(device, "create_buffer", refuse)
    with pytest.raises(DeviceError, match=r"no memory left \(\d+ bytes for slot 0\)"):
        model.session()


def test_limits_of_the_target_bind_at_compile_time(
    tiny_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    options: dict[str, Any] = {"context": 128, "chunk": 16, "output": tmp_path / "a.ark"}
    with pytest.raises(InvalidOptionError, match="at most 8192 bytes in one allocation"):
        arkinfer.compile(
            tiny_checkpoint("llama-tied"), target=small_device(tmp_path, 8192), **options
        )
    assert not (tmp_path / "a.ark").exists()


@pytest.mark.parametrize(
    ("limits", "says"),
    [
        (Limits(binding_bytes=4096), "bytes for .*maxStorageBufferBindingSize"),
        (Limits(storage_buffers=3), "4 buffers.*maxStorageBuffersPerShaderStage"),
        (Limits(shared_bytes=255), "256 bytes.*maxComputeWorkgroupStorageSize"),
        (Limits(lanes=63), "64 lanes.*maxComputeInvocationsPerWorkgroup"),
        (Limits(groups=4), "groups.*maxComputeWorkgroupsPerDimension"),
    ],
)
def test_limits(limits: Limits, says: str, llama: Path) -> None:
    loaded = arkinfer.load(llama).session().executor._loaded
    check_fits(loaded.table, loaded.shaders, Limits(), 128, "any device")
    with pytest.raises(DeviceError, match=f"a device cannot run this bundle: .*{says}"):
        check_fits(loaded.table, loaded.shaders, limits, 128, "a device")


def _set(*path: Any, value: Any) -> Callable[[Any], None]:
    def change(table: Any) -> None:
        for key in path[:-1]:
            table = table[key]
        table[path[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (_set("version", value=2), "version is '2'"),
        (_set("chunk", value=7), "chunk is '7'"),
        (_set("kv", value="int4"), "kv is 'int4'"),
        (_set("slots", 0, value=["^", 1, 2]), r"slots\[0\]"),
        (_set("slots", 0, value="temperature"), "tokens, past, total or capacity"),
        (_set("slots", 0, value=["-", 1, 2]), "a size of -1"),
        (_set("slots", 0, value=True), r"slots\[0\]"),
        (_set("weights", 0, "offset", value=1 << 40), "inside weights.bin"),
        (_set("weights", 0, "offset", value=4), "inside weights.bin"),
        (_set("logits", value=99), "logits is '99'"),
        (_set("head_columns", value=1 << 30), "too small"),
        (_set("body", 0, "launches", 0, "arguments", 0, value={"weight": "none"}), "'none'"),
        (_set("body", 0, "launches", 0, "arguments", 0, value=3), r"arguments\[0\] is '3'"),
        (_set("body", 0, "launches", 0, "arguments", value=[]), "0 buffers"),
        (_set("body", 0, "launches", 0, "kernel", value="none"), "the kernel 'none'"),
        (_set("body", 0, "launches", 0, "lanes", value=32), "32 lanes"),
        (_set("body", 0, "launches", 0, "groups", value=[1]), "three sizes"),
        (_set("body", 0, "launches", 0, "groups", value=[["/", 1, 0], 1, 1]), "none below 0"),
    ],
)
def test_launches_that_lie_are_refused(
    change: Callable[[Any], None], says: str, llama: Path, tmp_path: Path
) -> None:
    with pytest.raises(InvalidBundleError, match=says):
        arkinfer.load(changed(llama, tmp_path, change)).session()


def test_what_a_device_cannot_hold_is_refused(llama: Path, tmp_path: Path) -> None:
    copied = changed(llama, tmp_path, _set("caches", 0, "bytes", value=1 << 40))
    with pytest.raises(DeviceError, match="cache .*maxStorageBufferBindingSize"):
        arkinfer.load(copied).session()


def test_two_buffers_that_a_kernel_writes_are_two(llama: Path, tmp_path: Path) -> None:
    def alias(table: Any) -> None:
        step = next(step for step in table["body"] if step["kernel"] == "rms_norm")
        buffers = step["launches"][0]["arguments"]
        slots = [argument for argument in buffers if "slot" in argument]
        slots[0]["slot"] = slots[1]["slot"]

    with pytest.raises(InvalidBundleError, match="rms_norm.* has another buffer where it writes y"):
        arkinfer.load(changed(llama, tmp_path, alias)).session()


def test_a_source_that_does_not_build_carries_the_log(llama: Path, tmp_path: Path) -> None:
    copied = tmp_path / "broken.ark"
    shutil.copytree(llama, copied)
    source = (copied / "kernels.wgsl").read_text()
    assert "workgroupBarrier();" in source
    broken = source.replace("workgroupBarrier();", "workgroupBarrier(undeclared);")
    reseal(copied, {"kernels.wgsl": broken.encode()})
    with pytest.raises(DeviceError, match="compiling .*kernels.wgsl.*undeclared"):
        arkinfer.load(copied).session()
    reseal(
        copied, {"kernels.wgsl": source.replace("podArgs : PODArgs", "other : PODArgs").encode()}
    )
    with pytest.raises(DeviceError, match="compiling"):
        arkinfer.load(copied).session()
    reseal(copied, {"kernels.wgsl": source.replace("struct PODArgs", "struct Args").encode()})
    with pytest.raises(InvalidBundleError, match="declares its arguments in another way"):
        arkinfer.load(copied).session()
