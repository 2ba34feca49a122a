"""Compiles CUDA C++ to C++ of this machine's CPU (``cuda_on_cpu``).

Imports little: it is imported anew for every file that the stand-in for nvcc compiles.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).resolve().parent / "cuda_on_cpu"
KERNELS = HERE.parents[2] / "kernels"
_BOUNDS = r"(?:__launch_bounds__\s*\((?:[^()]|\([^()]*\))*\)\s*)?"
_ENTRY = re.compile(rf"__global__\s+void\s+{_BOUNDS}(\w+)\s*\(")


def compiler() -> str | None:
    """The C++ compiler that kernels are compiled with."""
    return os.environ.get("CXX") or shutil.which("c++") or shutil.which("g++")


def compile_source(source: str, output: Path, flags: Sequence[str] = ()) -> list[str]:
    """Compile CUDA C++ to a shared library.

    It has, of each entry NAME, ``const char* NAME__launch(const unsigned grid[3], unsigned lanes,
    unsigned shared_bytes, void** params)``, with parameters as cuLaunchKernel takes them and null
    where all went well, and ``NAME__launch_backwards``, where threads take turns in the opposite
    order.

    Returns:
        The names of the entries.
    """
    names = entries(source, flags)
    calls = [_trampoline(name, way) for name in names for way in (0, 1)]
    # An entry may be called as a function of the C library is.
    options = ["-O1", "-shared", "-fPIC", "-fvisibility=hidden", "-Wl,-Bsymbolic"]
    options += ["-U_FORTIFY_SOURCE", "-include", str(HERE / "cuda_on_cpu.h"), *flags]
    _run("\n".join([source, *calls]), [*options, "-o", str(output)])
    return names


def entries(source: str, flags: Sequence[str] = ()) -> list[str]:
    """The names of the entries of CUDA C++, as these flags leave them."""
    plain = _run(source, ["-E", "-P", "-DARK_CUDA_ON_CPU", *flags])
    return list(dict.fromkeys(_ENTRY.findall(plain)))


def _run(source: str, options: Sequence[str]) -> str:
    command = [compiler() or "c++", "-std=c++17", f"-I{HERE / 'empty'}", f"-I{KERNELS}"]
    command += [*options, "-x", "c++", "-"]
    done = subprocess.run(command, input=source, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def _trampoline(name: str, backwards: int) -> str:
    suffix = "_backwards" if backwards else ""
    return (
        f'extern "C" __attribute__((visibility("default"))) const char* {name}__launch{suffix}('
        "const unsigned grid[3], unsigned lanes, unsigned, void** params) { "
        f"return cuda_on_cpu::launch({name}, grid, lanes, {backwards}, params); }}"
    )
