"""CUDA without a GPU: a compiler and a driver that run kernels on this machine's CPU.

The compiler stands where nvcc does and makes shared libraries; the driver (``driver.cc``) loads
them as modules. Everything between them is the code that users run.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from pathlib import Path

from tests.support.cuda_compiler import compiler

HERE = Path(__file__).resolve().parent


class FakeCuda:
    """The driver, as tests steer it; libarkinfer opens the same file.

    Settings: ``capability``, ``driver`` (13000), ``devices``, ``integrated``, ``shared``,
    ``memory`` (bytes in all), ``fail NAME`` (the code that cuNAME gives) and ``after NAME`` (calls
    that go well before). ``fail kernel`` is told at the next synchronization.
    """

    def __init__(self, folder: Path) -> None:
        self.library = folder / "libcuda.so.1"
        command = [compiler() or "c++", "-std=c++17", "-O1", "-shared", "-fPIC", "-Wall", "-Wextra"]
        command += ["-Werror", "-o", str(self.library), str(HERE / "driver.cc"), "-ldl"]
        subprocess.run(command, check=True)
        self.nvcc = folder / "nvcc"
        line = f'"{sys.executable}" "{HERE / "nvcc.py"}" --kept "{folder}"'
        self.nvcc.write_text(f'#!/bin/sh\nexec {line} "$@"\n')
        self.nvcc.chmod(0o755)
        self._driver = ctypes.CDLL(str(self.library))
        self._driver.fake_error.restype = ctypes.c_char_p
        self._driver.fake_bytes.restype = ctypes.c_longlong
        self._set: set[str] = set()

    def set(self, name: str, value: int) -> None:
        """Change a setting until :meth:`reset`."""
        self._set.add(name)
        self._driver.fake_set(name.encode(), value)

    def reset(self) -> None:
        """All settings and counts as they were; forgets the error."""
        for name in self._set:
            self._driver.fake_unset(name.encode())
        self._set.clear()
        defaults = {"capability": 87, "driver": 13000, "devices": 1, "shared": 166912}
        for name, value in defaults.items():
            self._driver.fake_set(name.encode(), value)
        self._driver.fake_forget()

    def count(self, name: str) -> int:
        """Calls of cuNAME; ``kernels`` are those that ran."""
        return int(self._driver.fake_count(name.encode()))

    @property
    def error(self) -> str:
        """What the driver found first that no driver forgives."""
        return str(self._driver.fake_error().decode())

    @property
    def bytes(self) -> int:
        """Device memory that is allocated."""
        return int(self._driver.fake_bytes())

    def environment(self) -> dict[str, str]:
        """What makes ArkInfer use both."""
        return {"ARK_CUDA_LIBRARY": str(self.library), "ARK_NVCC": str(self.nvcc)}


def available() -> bool:
    """Whether there is a C++ compiler, and a system that loads libraries from memory."""
    return compiler() is not None and sys.platform == "linux" and hasattr(os, "memfd_create")
