"""Whole models through the CUDA launcher, on a driver that runs kernels on the CPU.

The driver is tests/support/fake_cuda; no GPU is needed, and none is used. It checks every address,
grid and parameter, and that nothing is written around an allocation.
"""

from __future__ import annotations

import _ctypes
import gc
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import arkinfer
from arkinfer.bundle_steps import code_of
from arkinfer.errors import ArkInferError, DamagedBundleError, InvalidBundleError
from benchmarks import cuda as benchmark
from tests.support.fake_cuda import FakeCuda, available
from tests.support.manifests import reseal
from tests.support.tiny_models import SMALL_SPARSE
from tests.support.two_backends import TOLERANCE, compare_whole, sessions

pytestmark = pytest.mark.platform
if importlib.util.find_spec("tvm") is None:
    pytest.skip("needs TVM: pip install 'arkinfer[tvm]'", allow_module_level=True)
if not available():
    pytest.skip("needs a C++ compiler on Linux", allow_module_level=True)

OUT_OF_MEMORY, NO_DEVICE, BAD_IMAGE, NO_BINARY, NO_TRANSLATOR, OLD_PTX = 2, 100, 200, 209, 221, 222
BAD_ADDRESS, LAUNCH_FAILED = 700, 719
# Of a layer: what products take over, and what they compute.
PRODUCTS = [
    "matmul (norm) to qkv",
    "matmul (residual) to attention_residual",
    "matmul (norm, gate) to gated",
    "matmul (residual) to output",
]


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeCuda]:
    fake = FakeCuda(tmp_path_factory.mktemp("cuda"))
    with pytest.MonkeyPatch.context() as patch:
        for name, value in fake.environment().items():
            patch.setenv(name, value)
        yield fake


@pytest.fixture
def cuda(driver: FakeCuda) -> Iterator[FakeCuda]:
    """The driver, which must not have found anything by the end."""
    gc.collect()  # sessions of the test before, which pytest may still hold
    driver.reset()
    yield driver
    assert driver.error == ""
    driver.reset()


@pytest.fixture(scope="module")
def llama(
    driver: FakeCuda,
    tiny_checkpoint: Callable[..., Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """A small bundle, not to be changed."""
    output = tmp_path_factory.mktemp("llama") / "a.ark"
    options: dict[str, Any] = {"context": 128, "chunk": 16, "quant": "w4g32"}
    source = tiny_checkpoint("llama")
    return arkinfer.compile(source, target="jetson-orin", output=output, **options).path


@pytest.mark.parametrize(
    ("kind", "kv", "quant"),
    [("minicpm4.1-8b", "fp16", "w4g32"), ("minicpm4-0.5b", "fp32", "none")],
)
def test_tiny_models(
    kind: str,
    kv: Any,
    quant: str,
    cuda: FakeCuda,
    tiny_checkpoint: Callable[..., Path],
    tmp_path: Path,
) -> None:
    """Prefill in chunks, verify-sized appends, decoding, rollback, and what a layer selected."""
    sparse = SMALL_SPARSE if kind.endswith("8b") else None
    source = tiny_checkpoint(kind, sparse=sparse)
    both = sessions("jetson-orin", source, tmp_path, kv, quant)
    compare_whole(both, sparse is not None, TOLERANCE[kv])
    assert cuda.count("GraphLaunch") == 9
    for layer in range(2 if sparse else 0):
        found, expected = (session.selected_blocks(layer) for session in both)
        assert all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))


def test_any_device_runs_what_is_compiled_for_none(
    cuda: FakeCuda, llama: Path, tiny_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    options: dict[str, Any] = {"context": 128, "chunk": 16, "quant": "w4g32"}
    source = tiny_checkpoint("llama")
    bundle = arkinfer.compile(source, target="cuda", output=tmp_path / "a.ark", **options)
    code = code_of(bundle)
    assert code is not None and (code.architecture, code.form) == ("compute_80", "ptx")
    cuda.set("capability", 121)
    found = arkinfer.load(bundle.path).session().append([5, 6])[-1]
    cuda.set("capability", 87)
    assert np.array_equal(found, arkinfer.load(llama).session().append([5, 6])[-1])


def test_a_token_is_one_graph(cuda: FakeCuda, llama: Path) -> None:
    """One launch of a graph, of which only what follows from the position is set anew."""
    session = arkinfer.load(llama).session()
    session.append([5, 6, 7])
    before = {name: cuda.count(name) for name in ("LaunchKernel", "GraphInstantiate")}
    session.append([8])
    assert cuda.count("GraphInstantiate") == before["GraphInstantiate"] + 1
    nodes = cuda.count("GraphAddKernelNode")
    # Embedding, rotary table and head; of two layers four products, the append, and attention.
    assert nodes == 3 + 2 * 7
    updates = cuda.count("GraphExecKernelNodeSetParams")
    for token in (9, 10, 11):
        session.append([token])
    assert cuda.count("GraphLaunch") == 4
    assert cuda.count("GraphAddKernelNode") == nodes
    assert cuda.count("LaunchKernel") == before["LaunchKernel"]
    each = (cuda.count("GraphExecKernelNodeSetParams") - updates) / 3
    assert 0 < each < nodes / 2


def test_steps_can_be_traced_and_answers_stay(cuda: FakeCuda, llama: Path) -> None:
    model = arkinfer.load(llama)
    plain, traced = model.session(), model.session()
    with traced.trace() as steps:
        found = [traced.append([token])[-1] for token in (5, 6)]
    assert cuda.count("GraphLaunch") == 0
    assert all(np.array_equal(plain.append([t])[-1], f) for t, f in zip((5, 6), found, strict=True))
    kernels = [step.kernel for step in steps]
    assert kernels[0] == "embed" and kernels[-1] == "matmul" and "attention" in kernels
    assert all(np.isfinite(step.values).all() for step in steps if step.values is not None)


def test_sessions_share_weights_and_leave_nothing(cuda: FakeCuda, llama: Path) -> None:
    model = arkinfer.load(llama)
    first = model.session()
    alone = cuda.bytes
    second = model.session()
    assert cuda.bytes - alone < alone and cuda.count("MemcpyHtoD") == 1
    assert np.array_equal(first.append([5, 6])[-1], second.append([5, 6])[-1])
    del first, second
    gc.collect()
    assert cuda.bytes == 0
    for made, ended in (("StreamCreate", "StreamDestroy"), ("ModuleLoadData", "ModuleUnload")):
        # As many modules as weights have shapes, and one of what TVM emitted.
        assert cuda.count(made) == cuda.count(ended) >= 2


def test_shared_memory_is_used_without_copies(cuda: FakeCuda, llama: Path) -> None:
    expected = arkinfer.load(llama).session().append([5, 6])[-1]
    cuda.set("integrated", 1)
    gc.collect()
    copies = cuda.count("MemcpyHtoD")
    assert np.array_equal(arkinfer.load(llama).session().append([5, 6])[-1], expected)
    assert cuda.count("MemcpyHtoD") == copies and cuda.count("MemAllocManaged") == 1


@pytest.mark.parametrize(
    ("capability", "runs"), [(87, True), (86, False), (89, False), (90, False), (110, False)]
)
def test_code_for_another_architecture_is_refused(
    capability: int, runs: bool, cuda: FakeCuda, llama: Path
) -> None:
    """Tegra's code runs on that Tegra alone."""
    cuda.set("capability", capability)
    model = arkinfer.load(llama)
    if runs:
        model.session()
        return
    says = f"kernels are for sm_87, and Fake GPU is sm_{capability}; expected.*compile for it"
    with pytest.raises(ArkInferError, match=says):
        model.session()


def _code(bundle: Path, copy: Path, **changes: Any) -> Path:
    shutil.copytree(bundle, copy)
    table = json.loads((copy / "launches.json").read_text())
    table["code"] |= changes
    reseal(copy, {"launches.json": json.dumps(table).encode()})
    return copy


@pytest.mark.parametrize(
    ("form", "made_for", "device", "runs"),
    [
        ("cubin", 86, 89, True),
        ("cubin", 89, 86, False),
        ("cubin", 80, 90, False),
        ("cubin", 80, 87, False),
        ("ptx", 80, 110, True),
        ("ptx", 80, 75, False),
    ],
)
def test_which_code_runs_where(
    form: str, made_for: int, device: int, runs: bool, cuda: FakeCuda, llama: Path, tmp_path: Path
) -> None:
    cuda.set("capability", device)
    model = arkinfer.load(_code(llama, tmp_path / "a.ark", form=form, capability=made_for))
    if runs:
        model.session()
    else:
        with pytest.raises(ArkInferError, match=f"Fake GPU is sm_{device}"):
            model.session()


@pytest.mark.parametrize(
    ("call", "code", "says"),
    [
        ("ModuleLoadData", NO_BINARY, "'portable' on Fake GPU: CUDA_ERROR_NO_BINARY_FOR_GPU"),
        ("ModuleLoadData", OUT_OF_MEMORY, "CUDA_ERROR_OUT_OF_MEMORY; load with a smaller context"),
        ("ModuleLoadData", OLD_PTX, "UNSUPPORTED_PTX_VERSION; update the driver .it is of CUDA 13"),
        ("ModuleLoadData", NO_TRANSLATOR, "JIT_COMPILER_NOT_FOUND; install all of the driver"),
        ("ModuleLoadData", BAD_IMAGE, "CUDA_ERROR_INVALID_IMAGE; compile the bundle for this"),
        ("MemAlloc", OUT_OF_MEMORY, "the weights: CUDA_ERROR_OUT_OF_MEMORY"),
        ("DevicePrimaryCtxRetain", 999, "opening Fake GPU: CUDA error 999"),
        ("GraphInstantiate", BAD_ADDRESS, "making a graph: CUDA_ERROR_ILLEGAL_ADDRESS"),
        ("LaunchKernel", BAD_ADDRESS, r"body\[0\] \('embed'\): CUDA_ERROR_ILLEGAL_ADDRESS"),
        ("kernel", BAD_ADDRESS, "3 tokens on Fake GPU: CUDA_ERROR_ILLEGAL_ADDRESS; start the proc"),
        ("kernel", LAUNCH_FAILED, "3 tokens on Fake GPU: CUDA_ERROR_LAUNCH_FAILED; start the proc"),
        ("MemAllocHost", OUT_OF_MEMORY, "the host's memory: CUDA_ERROR_OUT_OF_MEMORY; close"),
    ],
)
def test_codes_come_with_their_name_and_step(
    call: str, code: int, says: str, cuda: FakeCuda, llama: Path
) -> None:
    gc.collect()
    cuda.set(f"fail {call}", code)
    with pytest.raises(ArkInferError, match=says):
        session = arkinfer.load(llama).session()
        session.append([5, 6, 7])
        session.append([8])


def test_a_driver_that_is_too_old_is_told_with_both_versions(cuda: FakeCuda, llama: Path) -> None:
    cuda.set("driver", 12060)
    cuda.set("fail ModuleLoadData", OLD_PTX)
    says = (
        "CUDA_ERROR_UNSUPPORTED_PTX_VERSION, on a driver of CUDA 12.6; expected CUDA 13.0, "
        "which they were compiled with, or newer; update the driver"
    )
    with pytest.raises(ArkInferError, match=says):
        arkinfer.load(llama).session()


def test_memory_that_does_not_suffice_names_what_it_is_for(cuda: FakeCuda, llama: Path) -> None:
    cuda.set("memory", arkinfer.load(llama).info.manifest.memory.weights + 1000)
    with pytest.raises(ArkInferError, match="bytes for activations on Fake GPU: CUDA_ERROR_OUT"):
        arkinfer.load(llama).session()


@pytest.mark.parametrize(
    ("code", "says"),
    [
        (NO_DEVICE, "CUDA_ERROR_NO_DEVICE.*NVIDIA GPU"),
        (999, "CUDA_ERROR_UNKNOWN.*nvidia-smi"),
        (34, "CUDA_ERROR_STUB_LIBRARY.*LD_LIBRARY_PATH"),
        (803, "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH.*restart the machine"),
    ],
)
def test_a_driver_that_does_not_start(
    code: int, says: str, cuda: FakeCuda, llama: Path, tmp_path: Path
) -> None:
    """In a process of its own: a driver is opened once."""
    program = (
        "import ctypes, os, arkinfer\n"
        f"ctypes.CDLL(os.environ['ARK_CUDA_LIBRARY']).fake_set(b'fail Init', {code})\n"
        f"arkinfer.load({str(llama)!r}).session()\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode != 0
    with pytest.raises(AssertionError, match=says):
        raise AssertionError(done.stderr.strip().splitlines()[-1])


@pytest.mark.parametrize(
    ("library", "says"),
    [
        ("libcuda.so.1", "an absolute path"),
        ("/none/libcuda.so.1", "cannot be opened"),
        # As a driver that is older than a function.
        (_ctypes.__file__, "has no cuDriverGetVersion; expected a driver of CUDA 11.6 or newer"),
    ],
)
def test_a_library_that_cannot_be_opened(library: str, says: str, llama: Path) -> None:
    program = f"import arkinfer\narkinfer.load({str(llama)!r}).session()\n"
    environment = {**os.environ, "ARK_CUDA_LIBRARY": library}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=environment
    )
    assert done.returncode != 0 and says in done.stderr.strip().splitlines()[-1]


def _set(place: list[Any], value: Any) -> Callable[[Any], None]:
    def change(plan: Any) -> None:
        for key in place[:-1]:
            plan = plan[key]
        plan[place[-1]] = value

    return change


def _forget_code(plan: Any) -> None:
    """As if nothing were compiled."""
    for step in plan["body"] + plan["head"]:
        for launch in step["launches"]:
            launch["module"] = 0
    plan.pop("code")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (_set(["code", "form"], "source"), '"ptx" or "cubin"'),
        (_set(["code", "modules"], []), "no modules"),
        (_set(["code", "modules", 0, "offset"], 4), "multiple of 64"),
        (_set(["code", "modules", 0, "bytes"], 1 << 40), "leaves modules.bin"),
        (_set(["code", "capability"], -1), "capability"),
        (_set(["body", 0, "launches", 0, "module"], 1000), "module"),
        (_set(["body", 0, "launches", 0, "dynamic_bytes"], 1 << 30), "dynamic_bytes"),
        (_forget_code, "whether there is code"),
    ],
)
def test_tables_that_lie_are_refused(
    change: Callable[[Any], Any], says: str, llama: Path, tmp_path: Path
) -> None:
    copied = shutil.copytree(llama, tmp_path / "lying.ark")
    plan = json.loads((copied / "launches.json").read_text())
    change(plan)
    reseal(copied, {"launches.json": json.dumps(plan).encode()})
    with pytest.raises(InvalidBundleError, match=says):
        arkinfer.load(copied)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (_set(["body", 0, "launches", 0, "arguments"], []), "0 arguments.*the 4 of the kernel"),
        (_set(["body", 0, "launches", 0, "kernel"], "none"), "'none'.*CUDA_ERROR_NOT_FOUND"),
        (_set(["body", 0, "launches", 0, "dynamic_bytes"], 1 << 20), "shared memory; expected"),
        (_set(["body", 0, "launches", 0, "groups", 0], 1 << 40), "groups; expected"),
    ],
)
def test_launches_that_do_not_fit_the_code_are_refused(
    change: Callable[[Any], None], says: str, cuda: FakeCuda, llama: Path, tmp_path: Path
) -> None:
    copied = shutil.copytree(llama, tmp_path / "lying.ark")
    plan = json.loads((copied / "launches.json").read_text())
    change(plan)
    reseal(copied, {"launches.json": json.dumps(plan).encode()})
    with pytest.raises(ArkInferError, match=says):
        arkinfer.load(copied).session().append([5])


def test_damaged_weights_give_no_answer(cuda: FakeCuda, llama: Path, tmp_path: Path) -> None:
    copied = shutil.copytree(llama, tmp_path / "damaged.ark")
    weights = bytearray((copied / "weights.bin").read_bytes())
    weights[-1] ^= 1
    (copied / "weights.bin").write_bytes(weights)
    with pytest.raises(DamagedBundleError, match="weights.bin"):
        arkinfer.load(copied).session().append([5])


def test_every_step_has_code(llama: Path) -> None:
    code = code_of(arkinfer.load(llama).bundle)
    assert code is not None and code.architecture == "sm_87" and code.unresolved == 0
    kinds = {use.kernel for use in code.uses}
    products = {"matmul (norm)", "matmul (norm, gate)", "matmul (residual)"}
    others = {"embed", "rope_table", "cache_append (rotation)", "attention"}
    assert kinds == products | others


def test_the_benchmark_runs_its_parts(
    cuda: FakeCuda,
    tiny_checkpoint: Callable[..., Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """What it prints here are no measurements: the driver's clock stands still."""
    checkpoint = tiny_checkpoint("minicpm4.1-8b", sparse=SMALL_SPARSE)
    options = ["--depths", "96", "192", "--chunk", "32", "--quant", "w4g32", "--copied", "4096"]
    options += ["--repeats", "1"]
    parts = ["--only", "products", "steps", "decode", "prefill"]
    benchmark.main(["--checkpoint", str(checkpoint), *options, *parts])
    lines = capsys.readouterr().out.splitlines()
    begins = [line.split("|")[1].strip() for line in lines]
    assert begins[2:] == [
        "Fake GPU, sm_87: memory",
        *(f"{name}, {n}" for name in PRODUCTS for n in ("1 token", "32 tokens")),
        "matmul (norm) to logits, 1 token",
        *(f"launches of a token at {depth}" for depth in (96, 192)),
        *(f"attention of {n} at {depth}, one layer" for n in (1, 32) for depth in (96, 192)),
        "decode at 96",
        "decode at 128",
        "decode at the largest depth over the smallest",
        "prefill",
    ]
