"""From a step of the plan to launches of kernels that are described in TIR.

Each operator says in ``kernels/OPERATOR/launches.py`` what a step of it becomes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, Literal

from arkinfer.backends._device.weights import Part, parts_of
from arkinfer.backends._steps.plan import Cache, Step, View, WeightRef
from arkinfer.errors import LoweringError
from arkinfer.graph.graph import WeightSpec
from arkinfer.tir.caches import Caches
from arkinfer.tir.emit import Kernel
from arkinfer.tir.loops import Loops, Rows
from arkinfer.tir.sizes import Size

# From this many tokens on, products take tiles of tokens and attention has enough groups.
MANY = 9
_ANY_COUNT = 1 << 30


@dataclass(frozen=True)
class Scratch:
    """Memory that only the launches of one step use; ``size`` in bytes."""

    name: str
    size: Size


Source = View | WeightRef | Cache | Scratch


@dataclass(frozen=True)
class Launch:
    """A call of a kernel.

    Attributes:
        kernel: its name among the emitted.
        sources: what each of its buffers is bound to, by the description's argument.
        least: tokens from which on it is used.
        most: tokens up to which it is.
    """

    kernel: str
    sources: Mapping[str, Source]
    least: int = 1
    most: int = _ANY_COUNT


@dataclass
class Kernels:
    """The kernels of a plan, each described once however often it is launched.

    Attributes:
        loops: the target's schedule.
        dtype: what the caches hold.
        chunk: the most tokens of a launch.
        specs: weights by the name of their codes.
        largest: bytes that one buffer holds at most; 0: any number.
        functions: descriptions by name.
        written: kernels that are no descriptions, by the name that launches have for them.
    """

    loops: Loops
    dtype: Literal["f32", "f16"]
    chunk: int
    specs: Mapping[str, WeightSpec]
    largest: int = 0
    functions: dict[str, Any] = field(default_factory=dict)
    written: dict[str, Kernel] = field(default_factory=dict)
    _names: dict[tuple[Any, ...], str] = field(default_factory=dict)

    def name(self, describe: Callable[..., Any], *arguments: Any) -> str:
        """The name of a description with these arguments."""
        key = (describe, *arguments)
        if key not in self._names:
            name = f"{describe.__name__}_{len(self._names)}"
            self._names[key] = name
            self.functions[name] = describe(self.loops, *arguments)
        return self._names[key]

    def caches(self, cache: Cache) -> Caches:
        """The layout of a cache."""
        native = self.loops.schedule.half
        return Caches(self.dtype, cache.kv_heads, cache.head_dim, native=native)

    def fuses(self, product: Step) -> bool:
        """Whether there is a kernel for a product that takes over a norm or a gate.

        What none takes over stays a step of its own.
        """
        return False

    def arrange(self, steps: list[Step]) -> list[Step]:
        """The body's steps as they are launched; by default as the CPU has them."""
        return steps

    def launches(self, step: Step) -> list[Launch]:
        """What a step becomes.

        Raises:
            LoweringError: there is no such kernel for devices.
        """
        name = f"arkinfer.kernels.{step.kernel}.launches"
        try:
            module = import_module(name)
        except ModuleNotFoundError as missing:
            if not missing.name or not name.startswith(missing.name):
                raise
            raise LoweringError(f"no kernel for devices computes {step.kernel}") from None
        launches: list[Launch] = module.launches(self, step)
        return launches


def rows_of(view: View) -> Rows:
    """The columns that a description reads or writes."""
    return Rows(view.columns, view.buffer.columns, view.column)


def view_of(step: Step, name: str) -> View:
    """A buffer of a step.

    Raises:
        LoweringError: it has none of this name.
    """
    view = step.view(name)
    if view is None:
        raise LoweringError(f"{step.kernel} has no buffer {name}")
    return view


def cache_of(step: Step, name: str) -> Cache:
    """A cache of a step."""
    operand = step.operands[name]
    assert isinstance(operand, Cache)
    return operand


def parts_of_step(kernels: Kernels, step: Step) -> list[tuple[Part, dict[str, Source]]]:
    """The parts of a step's weight, each with the arguments that are its codes and its scales."""
    codes = step.operands["codes"]
    assert isinstance(codes, WeightRef)
    result = []
    for part in parts_of(kernels.specs[codes.name], kernels.largest):
        sources: dict[str, Source] = {"codes": WeightRef(part.codes)}
        if part.scales:
            sources["scales"] = WeightRef(part.scales)
        result.append((part, sources))
    return result
