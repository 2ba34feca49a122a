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


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="names x86-64 sets")
def test_a_set_that_the_compiler_does_not_know_is_left_out_by_name(tmp_path: Path) -> None:
    command = ["cmake", "-S", str(native_build.ROOT / "native"), "-B", str(tmp_path)]
    for isa, known in (("avxvnni", "OFF"), ("avx512vnni", "ON"), ("amx", "ON")):
        command.append(f"-DARK_KNOWS_{isa}={known}")
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    left_out = [line for line in done.stdout.splitlines() if "Left out" in line]
    assert len(left_out) == 1
    assert "avxvnni kernels" in left_out[0]
    assert "-mavxvnni" in left_out[0]
    assert not any("avxvnni" in path.name for path in (tmp_path / "CMakeFiles").iterdir())
