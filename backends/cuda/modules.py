"""``modules.bin``: device code one module after the other, and the table of what is in it."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from arkinfer import kernels
from arkinfer.backends.cuda.nvcc import Architecture, Compiler, Resources

ALIGNMENT = 64
_THREADS = 512  # of a processor, each with 128 registers
Define = int | float | str


@dataclass(frozen=True)
class Unit:
    """What is compiled to one module.

    Attributes:
        name: the operator, or ``"portable"`` for what TVM emitted.
        source: text of a ``.cu`` file.
        defines: macros.
    """

    name: str
    source: str
    defines: Mapping[str, Define] = field(default_factory=dict)

    def build(self, compiler: Compiler, architecture: Architecture) -> Module:
        """Compile it.

        Raises:
            KernelBuildError: nvcc refuses it.
        """
        folder = Path(next(iter(kernels.__path__)))
        options = ["-I", str(folder), "-I", str(folder / self.name)]
        options += [f"-D{name}={literal(value)}" for name, value in self.defines.items()]
        compiled = compiler.compile(self.source, architecture, options, f"{self.name} kernels")
        return Module(self.name, compiled.code, compiled.resources)


@dataclass(frozen=True)
class Module:
    """Code, with what it is called in messages and what its kernels use."""

    name: str
    code: bytes
    resources: Mapping[str, Resources]


def portable(source: str) -> Unit:
    """The unit of what TVM emitted.

    Left alone, the assembler aims at more threads than these kernels have and spills registers in
    attention; so many blocks leave a thread 128 of them.
    """
    return Unit("portable", re.sub(r"__launch_bounds__\((\d+)\)", _bounds, source))


def _bounds(found: re.Match[str]) -> str:
    threads = int(found.group(1))
    return f"__launch_bounds__({threads}, {max(1, _THREADS // threads)})"


def hand_written(operator: str, defines: Mapping[str, Define]) -> Unit:
    """The unit of ``kernels/OPERATOR/cuda.cu`` with these macros."""
    folder = Path(next(iter(kernels.__path__)))
    return Unit(operator, (folder / operator / "cuda.cu").read_text(), defines)


def literal(value: Define) -> str:
    """A macro's value; floats to their last bit."""
    return f"{value.hex()}f" if isinstance(value, float) else str(value)


def table(
    modules: Sequence[Module], compiler: Compiler, architecture: Architecture
) -> dict[str, Any]:
    """The part ``code`` of ``launches.json``: what the modules are for, and where each lies."""
    entries, offset = [], 0
    for module in modules:
        offset = -(-offset // ALIGNMENT) * ALIGNMENT
        kernels_of = {name: dataclasses.asdict(r) for name, r in module.resources.items()}
        entries.append(
            {
                "name": module.name,
                "offset": offset,
                "bytes": len(module.code),
                "kernels": kernels_of,
            }
        )
        offset += len(module.code)
    return {
        "architecture": architecture.name,
        "capability": architecture.capability,
        "form": "ptx" if architecture.ptx else "cubin",
        "toolkit": compiler.version,
        "modules": entries,
    }
