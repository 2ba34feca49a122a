"""A bundle for OpenCL runs on the device or on the CPU: the faster, or what is asked for."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest

import arkinfer
from arkinfer import memory
from arkinfer.bundle_steps import HOST_PLAN
from arkinfer.errors import (
    ArkInferError,
    DamagedBundleError,
    InvalidBundleError,
    InvalidOptionError,
    MemoryBudgetError,
)
from arkinfer.runtime.choice import Choice
from tests.support.fake_opencl import build
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
    output = tmp_path_factory.mktemp("choice") / "a.ark"
    source = tiny_checkpoint("llama")
    return arkinfer.compile(source, "opencl", "w4g32", 64, output, chunk=16).path


@pytest.fixture(scope="module")
def used(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache folder that tests share, so that kernels are tested once."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def platform(monkeypatch: pytest.MonkeyPatch, used: Path) -> None:
    monkeypatch.setenv("ARK_OPENCL_DEVICE", PLATFORMS[PLATFORM])
    monkeypatch.setenv("XDG_CACHE_HOME", str(used))


def chosen(bundle: Path, **options: object) -> Choice:
    choice = arkinfer.load(bundle, **options).session().choice  # type: ignore[arg-type]
    assert choice is not None
    return choice


def test_the_choice_is_measured_once_and_named(bundle: Path, used: Path) -> None:
    first = chosen(bundle)
    assert first.on in ("device", "cpu")
    assert PLATFORMS[PLATFORM] in first.device
    speeds = first.device_speeds, first.cpu_speeds
    assert speeds[0] is not None and speeds[1] is not None
    device, cpu = (512 / s.prefill + 128 / s.decode for s in speeds if s)
    assert first.on == ("device" if device < cpu else "cpu")
    assert "a prompt of 512 tokens and an answer of 128" in first.why
    [kept] = (used / "arkinfer").glob("choice-*")
    inode = kept.stat().st_ino
    again = chosen(bundle)
    # Numbers are kept with six digits.
    assert (again.on, again.device) == (first.on, first.device)
    assert again.cpu_speeds is not None
    assert again.cpu_speeds.decode == pytest.approx(speeds[1].decode, rel=1e-5)
    assert kept.stat().st_ino == inode
    chosen(bundle, threads=1)  # another number of threads: another measurement
    assert len(list((used / "arkinfer").glob("choice-*"))) == 2
    kept.write_bytes(kept.read_bytes()[:-3])
    chosen(bundle)
    assert kept.stat().st_ino != inode, "a damaged file counts as absent"


def test_both_can_be_asked_for_and_agree(bundle: Path) -> None:
    assert chosen(bundle, on="device").on == "device"
    assert chosen(bundle, on="cpu").on == "cpu"
    tokens = [5, 6, 7, 8, 9]
    device, cpu = (
        arkinfer.load(bundle, on=on, activations="fp32").session().append(tokens)
        for on in ("device", "cpu")
    )
    assert np.abs(device - cpu).max() < 5e-3 * np.abs(cpu).max()
    assert device.argmax() == cpu.argmax()
    # The CPU's own kinds of caches.
    logits = arkinfer.load(bundle, on="cpu", kv="int8").session().append(tokens)
    assert logits.argmax() == cpu.argmax()
    with pytest.raises(InvalidOptionError, match="on is 'gpu'"):
        arkinfer.load(bundle, on="gpu")


@pytest.mark.parametrize("quant", ["w4g32z", "none"])
def test_repacked_weights_are_those_of_a_cpu_bundle(
    quant: str, tiny_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    """The same bits give the same logits."""
    source = tiny_checkpoint("minicpm4-0.5b")
    found, expected = (
        arkinfer.load(
            arkinfer.compile(source, target, quant, 64, tmp_path / f"{target}.ark", chunk=16).path,
            on="cpu",
        )
        .session()
        .append(list(range(5, 25)), all_logits=True)
        for target in ("opencl", "cpu")
    )
    assert np.array_equal(found, expected)


def test_memory_of_the_cpu_holds_the_repacked_weights(bundle: Path) -> None:
    model = arkinfer.load(bundle, on="cpu")
    facts = model.bundle.manifest.memory
    assert facts.host is not None and facts.host.weights > 0
    table = memory.table(model.bundle.manifest, on_cpu=True)
    assert (table.weights, table.arena) == (facts.host.weights, facts.host.arena)
    assert model.promised_bytes(model.session()) == table.total
    device = arkinfer.load(bundle, on="device")
    assert device.promised_bytes(device.session()) == memory.table(model.bundle.manifest).total


def test_weights_that_do_not_fit_are_not_repacked(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = arkinfer.load(bundle, on="device").bundle.manifest
    tables = [memory.table(manifest, on_cpu=on_cpu) for on_cpu in (False, True)]
    device, cpu = (table.total - table.process for table in tables)
    assert device < cpu
    monkeypatch.setattr(memory, "available_memory", lambda: device)
    choice = chosen(bundle)
    assert choice.on == "device" and "would not fit into free memory" in choice.why
    with pytest.raises(MemoryBudgetError):
        arkinfer.load(bundle, on="cpu")


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('"weights_bytes": ', '"weights_bytes": 1', "weights_bytes"),
        ('"bits": 4', '"bits": 8', "a range of"),
        ('"sources": [', '"sources": [{"vector": "none"}, ', "'none'"),
        ('"kernel": "attention"', '"kernel": "embed"', "'embed'"),
        ('"version": 1', '"version": 2', "another plan version"),
    ],
)
def test_a_plan_for_the_cpu_that_lies_is_refused(
    old: str, new: str, says: str, bundle: Path, tmp_path: Path
) -> None:
    copied = Path(shutil.copytree(bundle, tmp_path / "lying.ark"))
    text = (copied / HOST_PLAN).read_text()
    assert old in text
    reseal(copied, {HOST_PLAN: text.replace(old, new, 1).encode()})
    with pytest.raises(InvalidBundleError, match=f"{re.escape(HOST_PLAN)}.*{says}"):
        arkinfer.load(copied)


def test_a_plan_for_the_cpu_is_checked_like_every_file(bundle: Path, tmp_path: Path) -> None:
    copied = Path(shutil.copytree(bundle, tmp_path / "damaged.ark"))
    data = bytearray((copied / HOST_PLAN).read_bytes())
    data[len(data) // 2] ^= 0x10
    (copied / HOST_PLAN).write_bytes(data)
    with pytest.raises(DamagedBundleError, match=re.escape(HOST_PLAN)):
        arkinfer.load(copied)


def arkinfer_says(
    bundle: Path, environment: Mapping[str, str], *options: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "arkinfer", *options],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def run(bundle: Path, environment: Mapping[str, str], *options: str) -> tuple[int, str, str]:
    arguments = ["--temperature", "0", "--max-tokens", "4", "--json", *options]
    done = arkinfer_says(bundle, environment, "run", str(bundle), "hello", "--raw", *arguments)
    return done.returncode, done.stdout, done.stderr


def test_commands_name_the_choice(bundle: Path, tmp_path: Path) -> None:
    code, out, err = run(bundle, {}, "--on", "cpu")
    assert code == 0 and err == "runs on the CPU: as it was asked for\n"
    answer = json.loads(out)
    assert answer["choice"]["on"] == "cpu"
    code, out, err = run(bundle, {}, "--on", "device", "--activations", "fp32")
    assert err.startswith("runs on ") and err.endswith(": as it was asked for\n")
    assert json.loads(out)["choice"]["on"] == "device"
    code, _, err = run(bundle, {"XDG_CACHE_HOME": str(tmp_path)})
    first, second = err.splitlines()
    assert code == 0 and first.startswith("testing and measuring ") and first.endswith(", once")
    assert second.startswith("runs on ")
    chosen(bundle)
    shown = arkinfer_says(bundle, {}, "inspect", str(bundle), "--json")
    choice = json.loads(shown.stdout)["choice"]
    assert choice["on"] in ("device", "cpu") and choice["cpu_speeds"]["decode"] > 0


def test_without_a_driver_the_cpu_runs(bundle: Path, tmp_path: Path) -> None:
    nowhere = {"OCL_ICD_VENDORS": str(tmp_path), "ARK_OPENCL_DEVICE": ""}
    code, out, err = run(bundle, nowhere)
    assert code == 0 and err.startswith("runs on the CPU: the OpenCL loader finds no platform")
    assert (
        json.loads(out)["token_ids"] == json.loads(run(bundle, {}, "--on", "cpu")[1])["token_ids"]
    )
    code, _, err = run(bundle, nowhere, "--on", "device")
    assert code == 1 and "finds no platform" in err and len(err.splitlines()) == 1


def test_a_driver_that_is_too_old_is_not_used(bundle: Path, tmp_path: Path) -> None:
    build(tmp_path)
    old = {"LD_LIBRARY_PATH": str(tmp_path), "ARK_OPENCL_DEVICE": ""}
    says = "old device (old platform) has 'OpenCL 1.1 old'; expected OpenCL 1.2 or later; update"
    code, _, err = run(bundle, old)
    assert code == 0 and err.startswith(f"runs on the CPU: {says}")
    code, _, err = run(bundle, old, "--on", "device")
    assert code == 1 and says in err and len(err.splitlines()) == 1


def test_a_device_that_is_named_must_be_there(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ARK_OPENCL_DEVICE", "no such device")
    with pytest.raises(ArkInferError, match="no OpenCL device like 'no such device'"):
        arkinfer.load(bundle).session()
    assert chosen(bundle, on="cpu").on == "cpu"
