"""Limits of an OpenCL device: allocations, shared memory and lanes, when compiling and loading."""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import arkinfer
from arkinfer.errors import ArkInferError, InvalidOptionError, LoweringError
from tests.support.manifests import reseal
from tests.support.profiles import opencl_profile

pytestmark = pytest.mark.platform
if importlib.util.find_spec("tvm") is None:
    pytest.skip("needs TVM: pip install 'arkinfer[tvm]'", allow_module_level=True)

from arkinfer.backends._device.limits import check_kernels, check_memory  # noqa: E402
from arkinfer.tir.emit import Kernel  # noqa: E402
from arkinfer.tir.sizes import Size  # noqa: E402
from tests.support.tir_runner import PLATFORM, PLATFORMS, opencl_platforms  # noqa: E402

if PLATFORM not in opencl_platforms():
    pytest.skip(
        f"needs {PLATFORM} (PoCL is Debian's pocl-opencl-icd) and pyopencl", allow_module_level=True
    )


@pytest.fixture(autouse=True)
def platform(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    monkeypatch.setenv("ARK_OPENCL_DEVICE", PLATFORMS[PLATFORM])
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))


def test_weights_beyond_one_allocation_are_split(
    tiny_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    """A table of tokens that is also the head, in parts; all else stays whole."""
    source = tiny_checkpoint("minicpm4-0.5b")
    largest = 1 << 16
    small = opencl_profile(tmp_path / "small.toml", limits={"largest_allocation": largest})
    bundles = [
        arkinfer.compile(
            source, target, "none", 64, tmp_path / f"{i}.ark", chunk=16, kv="fp32"
        ).path
        for i, target in enumerate([small, "cpu"])
    ]
    weights = json.loads((bundles[0] / "launches.json").read_text())["weights"]
    assert max(weight["bytes"] for weight in weights) <= largest
    parts = [weight for weight in weights if weight["name"].startswith("model.embed_tokens")]
    assert len(parts) > 1
    split, host, whole = (
        arkinfer.load(path, activations="fp32", on=on).session()
        for path, on in [(bundles[0], "device"), (bundles[0], "cpu"), (bundles[1], "cpu")]
    )
    tokens = [int(i) for i in np.random.default_rng(5).integers(3, 300, 20)]
    for count in (20, 3):  # tiles of rows, and few rows
        found, repacked, expected = (
            session.append(tokens[:count], all_logits=True) for session in (split, host, whole)
        )
        assert np.array_equal(repacked, expected)
        assert np.abs(found - expected).max() < 5e-5 * np.abs(expected).max()


def test_memory_beyond_one_allocation_is_refused_when_compiling() -> None:
    sizes: list[tuple[str, Size]] = [("the cache k", ["*", "capacity", 16])]
    check_memory({"largest_allocation": 1 << 16}, sizes, 4096)
    check_memory({}, sizes, 1 << 40)
    with pytest.raises(InvalidOptionError, match="65536 bytes for the cache k.*at most 32768 byte"):
        check_memory({"largest_allocation": 1 << 15}, sizes, 4096)


@pytest.mark.parametrize("limit", ["shared_memory", "work_group"])
def test_groups_beyond_a_profile_are_refused_when_compiling(limit: str) -> None:
    kernels = {"k": Kernel("k_kernel", (), frozenset(), (1, 1, 1), 64, 64)}
    check_kernels({limit: 64}, kernels)
    with pytest.raises(LoweringError, match=f"k_kernel needs {limit} 64.*at most 63"):
        check_kernels({limit: 63}, kernels)


@pytest.fixture(scope="module")
def bundle(tiny_checkpoint: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Not to be changed."""
    output = tmp_path_factory.mktemp("limits") / "a.ark"
    return arkinfer.compile(
        tiny_checkpoint("llama"), "opencl", context=64, chunk=16, output=output
    ).path


@pytest.mark.parametrize(
    ("place", "value", "says"),
    [
        ("shared_bytes", 1 << 40, "1099511627776 bytes of shared memory.*at most"),
        ("lanes", 32768, "groups of 32768 lanes.*at most"),
        ("cache", 1 << 45, r"for the cache 'layers.0.*at most \d+ at once on"),
    ],
)
def test_what_exceeds_the_device_is_refused_when_loading(
    place: str, value: int, says: str, bundle: Path, tmp_path: Path
) -> None:
    copied = tmp_path / "copied.ark"
    shutil.copytree(bundle, copied)
    plan = json.loads((copied / "launches.json").read_text())
    if place == "cache":
        plan["caches"][0]["bytes"] = value
    else:
        plan["body"][0]["launches"][0][place] = value
    reseal(copied, {"launches.json": json.dumps(plan).encode()})
    with pytest.raises(ArkInferError, match=says):
        arkinfer.load(copied, on="device").session()
    assert arkinfer.load(copied).session().choice.on == "cpu"
