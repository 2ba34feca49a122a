"""Finding nvcc, and reading what it says; no nvcc is needed."""

from __future__ import annotations

from pathlib import Path

import pytest

from arkinfer.backends.cuda import modules, nvcc
from arkinfer.backends.cuda.nvcc import Architecture, Compiler, Resources
from arkinfer.errors import KernelBuildError, LoweringError, MissingExtraError

LOG = """
ptxas info    : 24 bytes gmem, 8 bytes cmem[4]
ptxas info    : Compiling entry function 'one' for 'sm_87'
ptxas info    : Function properties for one
    0 bytes stack frame, 8 bytes spill stores, 4 bytes spill loads
ptxas info    : Used 80 registers, used 1 barriers, 12480 bytes smem, 404 bytes cmem[0]
ptxas info    : Compiling entry function 'two' for 'sm_87'
ptxas info    : Function properties for two
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 16 registers, 380 bytes cmem[0]
"""


def script(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n" + text)
    path.chmod(0o755)
    return path


@pytest.fixture
def nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder that is all that nvcc is looked for in, besides packages named nvidia there."""
    monkeypatch.delenv("ARK_NVCC", raising=False)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:/usr/bin:/bin")
    monkeypatch.setattr("sys.path", [str(tmp_path / "packages")])
    monkeypatch.delitem(__import__("sys").modules, "nvidia", raising=False)
    return tmp_path


def test_a_missing_nvcc_says_what_to_install(nowhere: Path) -> None:
    with pytest.raises(MissingExtraError, match=r"nvcc.*pip install 'arkinfer\[cuda\]'"):
        nvcc.find()


def test_nvcc_is_found_by_name_on_path_and_in_the_package(
    nowhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = 'echo "Cuda compilation tools, release {}, V{}.1"'
    packaged = nowhere / "packages" / "nvidia" / "cu13" / "bin" / "nvcc"
    script(packaged, version.format("13.0", "13.0"))
    assert nvcc.find() == Compiler(packaged, 13000)
    on_path = script(nowhere / "bin" / "nvcc", version.format("12.6", "12.6"))
    assert nvcc.find() == Compiler(on_path, 12060)
    named = script(nowhere / "other", version.format("13.2", "13.2"))
    monkeypatch.setenv("ARK_NVCC", str(named))
    assert nvcc.find() == Compiler(named, 13020)


def test_what_is_no_nvcc_is_refused(nowhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARK_NVCC", str(nowhere / "none"))
    with pytest.raises(KernelBuildError, match="does not run"):
        nvcc.find()
    monkeypatch.setenv("ARK_NVCC", str(script(nowhere / "some", "echo gcc")))
    with pytest.raises(KernelBuildError, match="--version gives 'gcc"):
        nvcc.find()


def test_a_kernel_that_does_not_compile_carries_the_log(tmp_path: Path) -> None:
    text = "echo 'remark: nothing'; echo 'k.cu(3): error: x is undefined' >&2; exit 2"
    compiler = Compiler(script(tmp_path / "nvcc", text), 13000)
    unit = modules.portable("void f();")
    with pytest.raises(KernelBuildError, match="portable kernels for sm_87: .*x is undefined"):
        unit.build(compiler, Architecture.of("sm_87"))


@pytest.mark.parametrize(
    ("log", "says"),
    [
        ("nvcc fatal : Failed to preprocess host compiler properties.", "such as g.."),
        ("nvcc fatal : Unsupported gpu architecture 'compute_110'", "take a newer one"),
    ],
)
def test_what_nvcc_lacks_is_named(log: str, says: str, tmp_path: Path) -> None:
    compiler = Compiler(script(tmp_path / "nvcc", f'echo "{log}" >&2; exit 1'), 13000)
    with pytest.raises(KernelBuildError, match=says):
        modules.portable("").build(compiler, Architecture.of("sm_110"))


def test_what_nvcc_is_asked_for(tmp_path: Path) -> None:
    """Machine code for a device, PTX with its end marked for any; macros to their last bit."""
    text = 'for a in "$@"; do last=$a; echo "$a" >>"$0.log"; done\n'
    text += 'while [ "$1" != -o ]; do shift; done; printf code >"$2"'
    compiler = Compiler(script(tmp_path / "nvcc", text), 13000)
    defines = {"ARK_SIZE": 4096, "ARK_SCALE": 0.1, "ARK_TYPE": "float"}
    unit = modules.Unit("matmul", "", defines)
    assert unit.build(compiler, Architecture.of("sm_110")).code == b"code"
    asked = (tmp_path / "nvcc.log").read_text().split()
    assert {"-cubin", "-arch=sm_110", "-DARK_SIZE=4096", "-DARK_TYPE=float"} <= set(asked)
    assert f"-DARK_SCALE={(0.1).hex()}f" in asked
    assert unit.build(compiler, Architecture.of("any")).code == b"code\0"
    assert {"-ptx", "-arch=compute_80"} <= set((tmp_path / "nvcc.log").read_text().split())


@pytest.mark.parametrize("arch", ["x86_64", "sm_", "sm_87;rm", "adreno-750"])
def test_architectures_that_are_none(arch: str) -> None:
    with pytest.raises(LoweringError, match="the device's arch"):
        Architecture.of(arch)


def test_resources_are_read_from_the_log() -> None:
    assert nvcc.resources(LOG) == {"one": Resources(80, 12, 12480), "two": Resources(16, 0, 0)}


def test_the_table_says_where_modules_lie() -> None:
    made = [modules.Module(n, b"x" * 70, {"k": Resources(8, 0, 4)}) for n in ("a", "b")]
    table = modules.table(made, Compiler(Path("nvcc"), 13000), Architecture.of("sm_90"))
    assert [(m["name"], m["offset"], m["bytes"]) for m in table["modules"]] == [
        ("a", 0, 70),
        ("b", 128, 70),
    ]
    assert (table["architecture"], table["capability"], table["form"]) == ("sm_90", 90, "cubin")
    assert table["modules"][0]["kernels"]["k"]["registers"] == 8
