"""Calling single kernels: in this process through the C ABI, or in the tool ``kernel_runner``.

The tool serves other processors, emulators and sanitizers; both take the same :class:`Call`.
"""

from __future__ import annotations

import ctypes
import struct
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
DTYPES = {"f32": 0, "f16": 1, "bf16": 2, "i32": 3, "u8": 4, "i8": 5, "u4": 6, "u2": 7}


class RefusedCall(Exception):
    """A kernel's check refused a call."""


@dataclass(frozen=True)
class Operand:
    """An array of a call, or a view of columns of a named buffer."""

    buffer: str
    dtype: str
    shape: tuple[int, ...]
    stride: int = 0
    offset: int = 0


@dataclass
class Call:
    """One kernel call. ``operands`` are in the kernel's order; None is an absent one."""

    kernel: str
    tokens: int = 1
    past: int = 0
    total: int = 0
    attributes: dict[str, float] = field(default_factory=dict)
    buffers: dict[str, Array] = field(default_factory=dict)
    operands: list[Operand | None] = field(default_factory=list)
    ancestors: NDArray[np.uint64] | None = None
    depths: NDArray[np.int32] | None = None

    def tree(self, parents: Sequence[int]) -> Call:
        """Make the tokens a tree: token i follows token ``parents[i]`` < i, -1 the last of past."""
        ancestors, depths = np.zeros(len(parents), np.uint64), np.zeros(len(parents), np.int32)
        for i, parent in enumerate(parents):
            ancestors[i] = np.uint64(1 << i)
            if parent >= 0:
                ancestors[i] |= ancestors[parent]
                depths[i] = depths[parent] + 1
        self.ancestors, self.depths = ancestors, depths
        return self

    def add(
        self, name: str, data: Array, dtype: str | None = None, shape: tuple[int, ...] | None = None
    ) -> Call:
        """Append an operand that is a whole array; ``shape`` where the stored one is packed."""
        names = {"float32": "f32", "float16": "f16", "bfloat16": "bf16", "int32": "i32"}
        names |= {"uint8": "u8", "int8": "i8"}
        self.buffers[name] = np.ascontiguousarray(data)
        logical = tuple(data.shape) if shape is None else shape
        stride = logical[1] if len(logical) == 2 else 0
        self.operands.append(Operand(name, dtype or names[data.dtype.name], logical, stride))
        return self

    def view(self, name: str, column: int, columns: int, dtype: str = "f32") -> Call:
        """Append an operand that is a view of columns of a 32-bit buffer added before or after."""
        rows, width = self.buffers[name].shape
        self.operands.append(Operand(name, dtype, (rows, columns), width, 4 * column))
        return self

    def skip(self) -> Call:
        """Append an absent operand."""
        self.operands.append(None)
        return self


class Runner(Protocol):
    """Something that runs kernels."""

    def isas(self) -> list[str]:
        """Kernel sets that can be run, best first."""
        ...

    def run(self, calls: Sequence[tuple[Call, str, int]]) -> list[dict[str, Array]]:
        """Run (call, kernel set, threads); gives the buffers after each call.

        Raises :class:`RefusedCall` when a kernel refuses one.
        """
        ...


def _aligned(data: Array) -> Array:
    memory = np.empty(data.nbytes + 64, np.uint8)
    start = -memory.ctypes.data % 64
    copy = memory[start : start + data.nbytes].view(data.dtype).reshape(data.shape)
    copy[...] = data
    return copy


class _COperand(ctypes.Structure):
    _fields_ = [
        ("data", ctypes.c_void_p),
        ("shape", ctypes.c_int64 * 4),
        ("stride", ctypes.c_int64),
        ("rank", ctypes.c_int32),
        ("dtype", ctypes.c_int32),
    ]


class LibraryRunner:
    """Kernels of a shared library, in this process."""

    def __init__(self, path: Path) -> None:
        self._library = ctypes.CDLL(str(path))
        self._library.ark_isas.restype = ctypes.c_char_p
        self._library.ark_last_error.restype = ctypes.c_char_p

    def isas(self) -> list[str]:
        return str(self._library.ark_isas().decode()).split()

    def run(self, calls: Sequence[tuple[Call, str, int]]) -> list[dict[str, Array]]:
        results = []
        for call, isa, threads in calls:
            buffers = {name: _aligned(data) for name, data in call.buffers.items()}
            self.run_in_place(call, buffers, isa, threads)
            results.append(buffers)
        return results

    def run_in_place(
        self, call: Call, buffers: dict[str, Array], isa: str, threads: int = 1
    ) -> None:
        """Run on the given buffers (64-byte aligned), which keep what the kernel wrote."""
        operands = (_COperand * len(call.operands))()
        for entry, operand in zip(operands, call.operands, strict=True):
            if operand is None:
                entry.shape[:] = [1, 1, 1, 1]
                continue
            entry.data = buffers[operand.buffer].ctypes.data + operand.offset
            entry.shape[:] = [*operand.shape, *[1] * (4 - len(operand.shape))]
            entry.stride = operand.stride
            entry.rank = len(operand.shape)
            entry.dtype = DTYPES[operand.dtype]
        names = [name.encode() for name in call.attributes]
        status = self._library.ark_kernel_run(
            call.kernel.encode(),
            isa.encode(),
            operands,
            ctypes.c_size_t(len(operands)),
            (ctypes.c_char_p * len(names))(*names),
            (ctypes.c_double * len(names))(*call.attributes.values()),
            ctypes.c_size_t(len(names)),
            ctypes.c_int64(call.tokens),
            ctypes.c_int64(call.past),
            ctypes.c_int64(max(call.total, call.past + call.tokens)),
            ctypes.c_int32(threads),
            None if call.ancestors is None else ctypes.c_void_p(call.ancestors.ctypes.data),
            None if call.depths is None else ctypes.c_void_p(call.depths.ctypes.data),
        )
        if status != 0:
            raise RefusedCall(self._library.ark_last_error().decode())


def aligned(buffers: dict[str, Array]) -> dict[str, Array]:
    """Copies that :meth:`LibraryRunner.run_in_place` accepts."""
    return {name: _aligned(data) for name, data in buffers.items()}


class ToolRunner:
    """The tool ``kernel_runner``, possibly behind an emulator."""

    def __init__(self, command: Sequence[str | Path]) -> None:
        self._command = [str(part) for part in command]
        self.seconds: list[float] = []

    def isas(self) -> list[str]:
        return list(self.kernels())

    def kernels(self) -> dict[str, list[str]]:
        """The kernels that each usable kernel set has of its own; best set first."""
        done = subprocess.run(
            [*self._command, "--isas"], capture_output=True, text=True, check=True
        )
        return {line.split()[0]: line.split()[1:] for line in done.stdout.splitlines()}

    def run(
        self, calls: Sequence[tuple[Call, str, int]], repeats: int = 1
    ) -> list[dict[str, Array]]:
        with tempfile.TemporaryDirectory() as folder:
            cases, results = Path(folder, "cases"), Path(folder, "results")
            parts = [_encode(*call) for call in calls]
            cases.write_bytes(b"ARKCASE1" + struct.pack("<I", len(calls)) + b"".join(parts))
            done = subprocess.run(
                [*self._command, str(cases), str(results), str(repeats)],
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode != 0:
                raise AssertionError(f"kernel_runner failed ({done.returncode}): {done.stderr}")
            return self._decode(results.read_bytes(), [call for call, _, _ in calls])

    def _decode(self, data: bytes, calls: list[Call]) -> list[dict[str, Array]]:
        assert data[:8] == b"ARKDONE1"
        at = 12
        self.seconds = []
        results = []
        for call in calls:
            (size,) = struct.unpack_from("<I", data, at)
            refusal = data[at + 4 : at + 4 + size].decode()
            at += 4 + size
            seconds, count = struct.unpack_from("<dI", data, at)
            self.seconds.append(seconds)
            at += 12
            buffers = {}
            assert count == len(call.buffers)
            for name, before in call.buffers.items():
                (size,) = struct.unpack_from("<Q", data, at)
                raw = data[at + 8 : at + 8 + size]
                buffers[name] = np.frombuffer(raw, before.dtype).reshape(before.shape)
                at += 8 + size
            if refusal:
                raise RefusedCall(refusal)
            results.append(buffers)
        return results


def _text(value: str) -> bytes:
    return struct.pack("<I", len(value)) + value.encode()


def _encode(call: Call, isa: str, threads: int) -> bytes:
    total = max(call.total, call.past + call.tokens)
    parts = [_text(call.kernel), _text(isa)]
    parts.append(struct.pack("<4q", call.tokens, call.past, total, threads))
    tree = [] if call.ancestors is None or call.depths is None else [call.ancestors, call.depths]
    parts.append(struct.pack("<I", len(tree[0]) if tree else 0))
    parts += [array.tobytes() for array in tree]
    parts.append(struct.pack("<I", len(call.attributes)))
    parts += [_text(name) + struct.pack("<d", value) for name, value in call.attributes.items()]
    parts.append(struct.pack("<I", len(call.buffers)))
    for data in call.buffers.values():
        parts += [struct.pack("<Q", data.nbytes), data.tobytes()]
    order = {name: index for index, name in enumerate(call.buffers)}
    parts.append(struct.pack("<I", len(call.operands)))
    for operand in call.operands:
        if operand is None:
            parts.append(struct.pack("<iQii5q", -1, 0, 0, 0, 1, 1, 1, 1, 0))
            continue
        shape = [*operand.shape, *[1] * (4 - len(operand.shape))]
        rank, dtype = len(operand.shape), DTYPES[operand.dtype]
        head = struct.pack("<iQii", order[operand.buffer], operand.offset, dtype, rank)
        parts.append(head + struct.pack("<5q", *shape, operand.stride))
    return b"".join(parts)
