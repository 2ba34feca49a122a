"""Launches on CUDA: hand-written kernels where there are some for a step, else those of TIR."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from types import ModuleType

from arkinfer.backends._device.launches import Kernels, Launch
from arkinfer.backends._device.rotate import join_rotation
from arkinfer.backends._steps.plan import Step
from arkinfer.backends.cuda import modules
from arkinfer.backends.cuda.modules import Define, Unit
from arkinfer.backends.cuda.nvcc import Architecture
from arkinfer.tir.emit import Kernel
from arkinfer.tir.sizes import Size

_SCALARS = frozenset(("tokens", "past", "total", "capacity"))
# Bytes of shared memory that one block may have, by compute capability (CUDA C++ Programming
# Guide, "Technical Specifications per Compute Capability").
_SHARED = {80: 163, 86: 99, 87: 163, 89: 99, 90: 227, 100: 227, 103: 227, 110: 227, 120: 99}
_PLAIN_SHARED = 48


@dataclass(frozen=True)
class Entry:
    """A hand-written kernel and how it is launched.

    Attributes:
        operator: the folder of its ``cuda.cu``.
        function: its ``extern "C"`` name there.
        defines: macros that it is compiled with. Entries with the same ones share a module.
        arguments: its parameters in order. ``tokens``, ``past``, ``total`` and ``capacity`` are
            int32 by value, all others addresses.
        groups: blocks on three axes.
        lanes: threads of a block.
        shared_bytes: dynamic shared memory of a block.
    """

    operator: str
    function: str
    defines: Mapping[str, Define]
    arguments: tuple[str, ...]
    groups: tuple[Size, Size, Size]
    lanes: int
    shared_bytes: int = 0


@dataclass
class CudaKernels(Kernels):
    """See the module."""

    architecture: Architecture = field(default=Architecture(80, ptx=True))
    _units: dict[tuple[str, tuple[tuple[str, Define], ...]], int] = field(default_factory=dict)

    @property
    def capability(self) -> int:
        """87 for compute capability 8.7, 80 for PTX that any later device takes."""
        return self.architecture.capability

    @property
    def shared_limit(self) -> int:
        """Bytes of shared memory that a block may have."""
        return _SHARED.get(self.capability, _PLAIN_SHARED) << 10

    def add(self, entry: Entry) -> str:
        """The name for launches of a hand-written kernel."""
        key = (entry.operator, tuple(sorted(entry.defines.items())))
        # Module 0 holds what TVM emits.
        module = self._units.setdefault(key, len(self._units) + 1)
        name = f"{entry.function}_in_{module}"
        self.written[name] = Kernel(
            name=entry.function,
            arguments=entry.arguments,
            scalars=_SCALARS & frozenset(entry.arguments),
            groups=entry.groups,
            lanes=entry.lanes,
            shared_bytes=entry.shared_bytes,
            module=module,
            dynamic_bytes=entry.shared_bytes,
        )
        return name

    def units(self) -> list[Unit]:
        """What is compiled besides TVM's source, in the order of the modules."""
        return [modules.hand_written(operator, dict(defines)) for operator, defines in self._units]

    def fuses(self, product: Step) -> bool:
        """See :class:`Kernels`."""
        written = _hand_written(product)
        return written is not None and bool(written.computes(self, product))

    def arrange(self, steps: list[Step]) -> list[Step]:
        """See :class:`Kernels`."""
        return join_rotation(steps)

    def launches(self, step: Step) -> list[Launch]:
        """What a step becomes.

        Raises:
            LoweringError: there is no such kernel for devices.
        """
        written = _hand_written(step)
        if written is not None:
            found: list[Launch] | None = written.launches(
                self, step, lambda: super(CudaKernels, self).launches(step)
            )
            if found is not None:
                return found
        return super().launches(step)


def _hand_written(step: Step) -> ModuleType | None:
    """``kernels/OPERATOR/cuda.py``, where there is one."""
    name = f"arkinfer.kernels.{step.kernel}"
    if importlib.util.find_spec(name) and importlib.util.find_spec(f"{name}.cuda"):
        return import_module(f"{name}.cuda")
    return None
