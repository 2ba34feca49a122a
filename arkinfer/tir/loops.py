"""How the groups and lanes of a description become loops or threads of a target."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from tvm.script import tirx as T

from arkinfer.tir.schedule import GENERIC, Schedule

Kind = Literal["llvm", "opencl", "cuda", "metal", "webgpu"]
LANES = 64


@dataclass(frozen=True)
class Loops:
    """The schedule of one target kind.

    A description has, outermost, up to three loops over groups, the first on axis ``x``. Inside
    come phases, each a loop over lanes. A phase sees what earlier phases left in shared memory;
    within a phase a lane reads no shared memory that another lane writes. What a lane keeps
    from phase to phase is private.

    To add up a number of each lane, :meth:`total` adds those of a sub-group, where the device has
    some; lanes that :meth:`leads` leave the sum in shared memory at :meth:`partial`, and a later
    phase adds up all ``partials``.
    """

    kind: Kind
    schedule: Schedule = GENERIC

    @property
    def gpu(self) -> bool:
        """Whether groups and lanes are threads."""
        return self.kind != "llvm"

    def groups(self, extent: Any, axis: Literal["x", "y", "z"] = "x") -> Any:
        """A loop over groups."""
        if self.gpu:
            return T.thread_binding(extent, thread=f"blockIdx.{axis}")
        return T.parallel(extent) if axis == "x" else T.serial(extent)

    def lanes(self, count: int = LANES) -> Any:
        """A phase: a loop over the lanes of a group, ``count`` in every phase of it."""
        return T.thread_binding(count, thread="threadIdx.x") if self.gpu else T.serial(count)

    @property
    def across(self) -> int:
        """Lanes of a group that is as large as a sub-group, where there are some."""
        return self.schedule.subgroup or LANES

    @property
    def partials(self) -> int:
        """Numbers of a group that are left when sub-groups have added up theirs."""
        return LANES // (self.schedule.subgroup or 1)

    def total(self, value: Any) -> Any:
        """The sum of a float32 over the lane's sub-group; all lanes have to get here."""
        return self._reduced("sub_group_reduce_add", value)

    def largest(self, value: Any) -> Any:
        """The largest of a float32 over the lane's sub-group; all lanes have to get here."""
        return self._reduced("sub_group_reduce_max", value)

    def _reduced(self, function: str, value: Any) -> Any:
        return T.call_extern("float32", function, value) if self.schedule.subgroup else value

    def leads(self, lane: Any) -> Any:
        """Whether the lane is the one of its sub-group that writes what they found."""
        if not self.schedule.subgroup:
            return lane >= 0
        return T.call_extern("uint32", "get_sub_group_local_id") == T.uint32(0)

    def partial(self, lane: Any) -> Any:
        """Where the lane's sub-group leaves what it found; a lane's own number without any."""
        if not self.schedule.subgroup:
            return lane
        return T.Cast("int32", T.call_extern("uint32", "get_sub_group_id"))

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
