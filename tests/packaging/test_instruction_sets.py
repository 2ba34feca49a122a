"""No symbol may be shared by objects that are compiled for different instruction sets.

The linker keeps one copy of an inline function. If it keeps the copy compiled
for AVX-512, a CPU without it dies in code that never asked for AVX-512.
"""

from __future__ import annotations

import platform
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support import native_build

# Text, data and unique symbols that a linker merges between objects.
MERGED = set("uVvWw")


@pytest.fixture(scope="module")
def objects() -> dict[str, list[Path]]:
    """Object files by instruction set."""
    folder = native_build.build("release")
    found: dict[str, list[Path]] = {}
    for path in folder.rglob("*.o"):
        for part in path.parts:
            if part.startswith("ark_kernels_"):
                found.setdefault(part.removeprefix("ark_kernels_").split(".")[0], []).append(path)
    return found


def test_kernel_objects_define_no_merged_symbol(objects: dict[str, list[Path]]) -> None:
    nm = shutil.which("nm")
    assert nm, "nm comes with the C++ compiler's binutils"
    assert len(objects) >= 2
    shared = []
    for isa, paths in objects.items():
        for path in paths:
            done = subprocess.run(
                [nm, "-C", "--defined-only", str(path)], capture_output=True, text=True, check=True
            )
            for line in done.stdout.splitlines():
                kind, name = line.split(maxsplit=2)[1:]
                if kind in MERGED:
                    shared.append(f"{isa}/{path.name}: {name}")
    assert shared == []


# ---- compilers and assemblers that are older than an instruction set ----------------------

on_x86 = pytest.mark.skipif(
    platform.machine() not in ("x86_64", "AMD64"), reason="names x86-64 sets"
)
ALL = ["scalar", "avx2", "avxvnni", "avx512", "avx512vnni", "amx"]


def _script(path: Path, refused: str, where: str, stand_in_for: str) -> Path:
    """A compiler or assembler that refuses arguments or input with a word in it."""
    real = shutil.which(stand_in_for)
    assert real
    path.write_text(
        f"""#!/bin/sh
for last; do :; done
if {where} | grep -q -e '{refused}'; then echo "Error: unrecognized {refused}" >&2; exit 1; fi
exec {real} "$@"
"""
    )
    path.chmod(0o755)
    return path


def _sets(folder: Path, *options: str) -> tuple[list[str], list[str]]:
    """The kernel sets of a build with these options, and what cmake said of the others."""
    source = str(native_build.ROOT / "native")
    command = ["cmake", "-S", source, "-B", str(folder / "build"), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    (chosen,) = (line for line in lines if line.startswith("-- Kernel sets: "))
    return chosen.split()[3:], [line for line in lines if "Left out" in line]


@on_x86
def test_a_present_day_compiler_makes_every_set(tmp_path: Path) -> None:
    done = subprocess.run(["g++", "-dumpversion"], capture_output=True, text=True, check=True)
    if int(done.stdout.split(".")[0]) < 12:
        pytest.skip("needs GCC 12 or newer")
    assert _sets(tmp_path, f"-DCMAKE_CXX_COMPILER={shutil.which('g++')}") == (ALL, [])


@on_x86
def test_a_set_that_the_compiler_does_not_know_is_left_out_by_name(tmp_path: Path) -> None:
    old = _script(tmp_path / "old-g++", "-mamx-tile", 'echo " $*"', "g++")
    chosen, left_out = _sets(tmp_path, f"-DCMAKE_CXX_COMPILER={old}")
    assert chosen == ALL[:-1]
    (line,) = left_out
    assert f"the amx kernels: {old}" in line
    assert "Error: unrecognized -mamx-tile" in line


@on_x86
def test_a_set_that_the_assembler_does_not_know_is_left_out_by_name(tmp_path: Path) -> None:
    _script(tmp_path / "as", "{vex}", 'cat "$last"', "as")
    gnu = f"-DCMAKE_CXX_COMPILER={shutil.which('g++')}"
    chosen, left_out = _sets(tmp_path, gnu, f"-DCMAKE_CXX_FLAGS=-B{tmp_path}")
    assert chosen == [isa for isa in ALL if isa != "avxvnni"]
    (line,) = left_out
    assert "the avxvnni kernels" in line
    assert "-mavxvnni" in line


@on_x86
def test_only_the_sets_asked_for_are_built_and_scalar_is_one_of_them(tmp_path: Path) -> None:
    assert _sets(tmp_path, "-DARK_ISAS=scalar;avx512;neon") == (["scalar", "avx512"], [])
    with pytest.raises(subprocess.CalledProcessError) as error:
        _sets(tmp_path, "-DARK_ISAS=avx2")
    assert "it must hold scalar" in error.value.stderr
