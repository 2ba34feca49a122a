"""What nvcc makes of the kernels, and NVIDIA's own header against ours; no GPU is needed."""

from __future__ import annotations

import importlib.util
import subprocess
from pathlib import Path

import pytest

from arkinfer.backends.cuda import modules, nvcc
from arkinfer.backends.cuda.nvcc import Architecture, Compiler
from arkinfer.errors import ArkInferError

pytestmark = pytest.mark.platform
if importlib.util.find_spec("tvm") is None:
    pytest.skip("needs TVM: pip install 'arkinfer[tvm]'", allow_module_level=True)
try:
    COMPILER = nvcc.find()
except ArkInferError as missing:
    pytest.skip(str(missing), allow_module_level=True)

from arkinfer.tir.emit import device_target, emit  # noqa: E402
from arkinfer.tir.loops import Loops  # noqa: E402
from tests.support.tir_descriptions import descriptions  # noqa: E402

NATIVE = Path(__file__).resolve().parents[2] / "native"


@pytest.fixture(scope="module")
def source() -> str:
    """Every kernel, at the shape of MiniCPM4.1-8B."""
    return emit(descriptions(Loops("cuda")), device_target("cuda")).source


@pytest.mark.parametrize("arch", ["sm_87", "sm_89", "sm_90", "sm_110"])
def test_every_kernel_compiles_without_spills(arch: str, source: str) -> None:
    built = modules.portable(source).build(COMPILER, Architecture.of(arch))
    assert built.code[:4] == b"\x7fELF"
    names = {f"{name}_kernel" for name in descriptions(Loops("cuda"))}
    assert set(built.resources) == names
    for name, used in built.resources.items():
        assert used.spill_bytes == 0, name
        assert 0 < used.registers <= 128 and used.shared_bytes <= 48 << 10, name


def test_any_device_gets_ptx(source: str) -> None:
    built = modules.portable(source).build(COMPILER, Architecture.of("any"))
    assert b".target sm_80" in built.code and built.code.endswith(b"\0")


def test_an_architecture_that_nvcc_does_not_know_is_told() -> None:
    with pytest.raises(ArkInferError, match="portable kernels for sm_12: .*sm_12"):
        modules.portable("").build(COMPILER, Architecture(12, ptx=False))


def test_our_part_of_the_driver_api_is_nvidias(tmp_path: Path) -> None:
    """Sizes, places and numbers are compared by the compiler, with cuda.h beside it."""
    fields = {
        "function": "func",
        "grid": "gridDimX",
        "block": "blockDimX",
        "shared_bytes": "sharedMemBytes",
        "parameters": "kernelParams",
        "extra": "extra",
        "kernel": "kern",
        "context": "ctx",
    }
    numbers = {
        "kOutOfMemory": "CUDA_ERROR_OUT_OF_MEMORY",
        "kNoDevice": "CUDA_ERROR_NO_DEVICE",
        "kInvalidImage": "CUDA_ERROR_INVALID_IMAGE",
        "kNoBinaryForGpu": "CUDA_ERROR_NO_BINARY_FOR_GPU",
        "kNoTranslator": "CUDA_ERROR_JIT_COMPILER_NOT_FOUND",
        "kIllegalAddress": "CUDA_ERROR_ILLEGAL_ADDRESS",
        "kLaunchTimeout": "CUDA_ERROR_LAUNCH_TIMEOUT",
        "kLaunchFailed": "CUDA_ERROR_LAUNCH_FAILED",
        "kUnsupportedPtxVersion": "CUDA_ERROR_UNSUPPORTED_PTX_VERSION",
        "kMaxThreadsPerBlock": "CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK",
        "kIntegrated": "CU_DEVICE_ATTRIBUTE_INTEGRATED",
        "kCapabilityMajor": "CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR",
        "kCapabilityMinor": "CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR",
        "kMaxSharedOptIn": "CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN",
        "kFunctionSharedBytes": "CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES",
        "kFunctionMaxDynamicShared": "CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES",
        "kStreamNonBlocking": "CU_STREAM_NON_BLOCKING",
        "kAttachGlobal": "CU_MEM_ATTACH_GLOBAL",
        "kAttachHost": "CU_MEM_ATTACH_HOST",
    }
    lines = ["#include <cstddef>", "#include <cuda.h>", '#include "device/cuda_api.h"', ""]
    node = "CUDA_KERNEL_NODE_PARAMS_v2"
    lines += [f"static_assert(sizeof(ark::cu::KernelNode) == sizeof({node}));"]
    lines += [
        f"static_assert(offsetof(ark::cu::KernelNode, {own}) == offsetof({node}, {other}));"
        for own, other in fields.items()
    ]
    lines += [
        f"static_assert(static_cast<int>(ark::cu::{own}) == static_cast<int>({other}));"
        for own, other in numbers.items()
    ]
    lines += ["static_assert(sizeof(ark::cu::Address) == sizeof(CUdeviceptr));"]
    lines += [_same_function(name) for name in _functions()]
    check = tmp_path / "check.cu"
    check.write_text("\n".join(lines) + "\n")
    includes = ["-I", str(NATIVE / "src"), "-I", str(NATIVE / "include")]
    command = [str(COMPILER.path), "-std=c++17", *includes, "-c", "-o", str(tmp_path / "check.o")]
    done = subprocess.run([*command, str(check)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def _functions() -> list[str]:
    """The names of what the launcher calls."""
    text = (NATIVE / "src" / "device" / "cuda_api.h").read_text()
    table = text[text.index("struct Api {") : text.index("};", text.index("struct Api {"))]
    return [part.split(")")[0] for part in table.split("(*")[1:]]


def _same_function(name: str) -> str:
    """Both have as many parameters, each of one size."""
    shape = "template <class R, class... A> constexpr auto shape(R (*)(A...))"
    helper = f"namespace of_{name} {{ {shape} {{ struct S {{ size_t s[sizeof...(A) + 1]; }}; "
    helper += "return S{{sizeof(A)..., 0}}; }\n"
    helper += f"constexpr auto own = shape(decltype(ark::cu::Api::{name}){{}});\n"
    helper += f"constexpr auto other = shape(static_cast<decltype(&cu{name})>(nullptr));\n"
    helper += "constexpr bool same() { if (sizeof(own) != sizeof(other)) return false; "
    helper += "for (size_t i = 0; own.s[i] + other.s[i] != 0; i++) "
    helper += "if (own.s[i] != other.s[i]) return false; return true; }\n"
    return helper + f'static_assert(same(), "cu{name}"); }}'


def test_the_version_is_read() -> None:
    assert isinstance(COMPILER, Compiler) and COMPILER.version >= 11000
