"""Runs CUDA C++ on this machine's CPU, for tests: exact in what it computes, silent about speed.

``cuda_on_cpu.h`` says how. Besides results it checks that threads reach their meeting points, that
asynchronous copies are aligned, that rows of ldmatrix lie in different banks, and, because every
buffer ends where memory ends, that nothing is read or written behind a buffer (the process then
dies of it).
"""

from __future__ import annotations

import ctypes
import hashlib
import mmap
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.support.cuda_compiler import compile_source

Array = NDArray[Any]
_WARNINGS = ("-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas", "-Wno-unused-function")


class CudaOnCpuError(Exception):
    """A kernel that would hang or break on a GPU."""


class Guarded:
    """A copy of an array whose end is the end of readable memory."""

    def __init__(self, array: Array) -> None:
        page = mmap.PAGESIZE
        whole = -(-max(array.nbytes, 1) // page) * page
        self._memory = mmap.mmap(-1, whole + page)
        base = ctypes.addressof(ctypes.c_char.from_buffer(self._memory))
        libc = ctypes.CDLL(None, use_errno=True)
        forbidden = libc.mprotect(ctypes.c_void_p(base + whole), ctypes.c_size_t(page), 0)
        assert forbidden == 0, os.strerror(ctypes.get_errno())
        # Devices align memory to at least 16 bytes, which leaves up to 15 readable behind the end.
        start = (whole - array.nbytes) // 16 * 16
        self.address = base + start
        view: Array = np.frombuffer(self._memory, array.dtype, array.size, start)
        self.array = view.reshape(array.shape)
        self.array[...] = array


class Program:
    """The entries of one file, compiled with one set of macros."""

    def __init__(self, path: Path, defines: Mapping[str, int | float | str], folder: Path) -> None:
        flags = [*_WARNINGS, *(f"-D{name}={_literal(value)}" for name, value in defines.items())]
        digest = hashlib.sha256(f"{path}{sorted(flags)}".encode()).hexdigest()[:16]
        output = folder / f"{path.parent.name}-{digest}.so"
        if not output.exists():
            compile_source(path.read_text(encoding="utf-8"), output, flags)
        self._library = ctypes.CDLL(str(output))

    def run(
        self,
        entry: str,
        arguments: Sequence[Array | int],
        groups: tuple[int, int, int],
        lanes: int,
    ) -> list[Array]:
        """Run an entry in both orders of threads; gives back its buffers as they then are.

        Raises:
            CudaOnCpuError: threads do not meet, or the two orders give different results.
        """
        ways = [f"{entry}__launch{way}" for way in ("", "_backwards")]
        first, second = (self._run(way, arguments, groups, lanes) for way in ways)
        for one, other in zip(first, second, strict=True):
            if not np.array_equal(one.view(np.uint8), other.view(np.uint8)):
                raise CudaOnCpuError(f"{entry} depends on the order of threads")
        return first

    def _run(
        self,
        symbol: str,
        arguments: Sequence[Array | int],
        groups: tuple[int, int, int],
        lanes: int,
    ) -> list[Array]:
        buffers: list[Guarded] = []
        values: list[Any] = []
        for argument in arguments:
            if isinstance(argument, int):
                values.append(ctypes.c_int32(argument))
            else:
                buffers.append(Guarded(argument))
                values.append(ctypes.c_void_p(buffers[-1].address))
        addresses = [ctypes.cast(ctypes.byref(value), ctypes.c_void_p) for value in values]
        params = (ctypes.c_void_p * len(values))(*addresses)
        launch = self._library[symbol]
        launch.restype = ctypes.c_char_p
        message = launch((ctypes.c_uint * 3)(*groups), lanes, 0, params)
        if message is not None:
            raise CudaOnCpuError(f"{symbol}: {message.decode()}")
        return [buffer.array.copy() for buffer in buffers]


def _literal(value: int | float | str) -> str:
    return f"{value.hex()}f" if isinstance(value, float) else str(value)
