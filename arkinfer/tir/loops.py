"""How the groups and lanes of a description become loops or threads of a target."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from tvm.script import tirx as T

Kind = Literal["llvm", "opencl", "cuda", "metal", "webgpu"]
LANES = 64


@dataclass(frozen=True)
class Loops:
    """The schedule of one target kind.

    A description has, outermost, up to three loops over groups, the first on axis ``x``. Inside
    come phases, each a loop over lanes. A phase sees what earlier phases left in shared memory;
    within a phase a lane reads no shared memory that another lane writes. What a lane keeps
    from phase to phase is private.
    """

    kind: Kind

    @property
    def gpu(self) -> bool:
        """Whether groups and lanes are threads."""
        return self.kind != "llvm"

    def groups(self, extent: Any, axis: Literal["x", "y", "z"] = "x") -> Any:
        """A loop over groups."""
        if self.gpu:
            return T.thread_binding(extent, thread=f"blockIdx.{axis}")
        return T.parallel(extent) if axis == "x" else T.serial(extent)

    def lanes(self) -> Any:
        """A phase: a loop over the lanes of a group."""
        return T.thread_binding(LANES, thread="threadIdx.x") if self.gpu else T.serial(LANES)

    @property
    def shared(self) -> str:
        """The scope of a buffer that the lanes of a group share."""
        return "shared" if self.gpu else "global"

    @property
    def private(self) -> str:
        """The scope of a buffer that lanes keep from phase to phase."""
        return "local" if self.gpu else "global"

    def private_size(self, count: int) -> int:
        """Elements of a private buffer with ``count`` for each lane."""
        return count if self.gpu else count * LANES

    def own(self, lane: Any, index: Any, count: int) -> Any:
        """Where element ``index`` of a lane's ``count`` lies in a private buffer."""
        return index if self.gpu else lane * count + index


@dataclass(frozen=True)
class Rows:
    """Columns ``start`` to ``start + columns`` of a buffer with ``stride`` columns."""

    columns: int
    stride: int
    start: int = 0

    def at(self, row: Any, column: Any) -> Any:
        """The flat index of an element."""
        return row * self.stride + (self.start + column)


def ceil_div(value: Any, divisor: int) -> Any:
    """``value / divisor`` rounded up, for what is not negative."""
    return (value + (divisor - 1)) // divisor
