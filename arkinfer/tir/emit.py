"""From descriptions to a target's source, with what its text does not say: how to launch it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import tvm
from tvm import tirx
from tvm.tirx.build import codegen_build, split_host_device_mods

from arkinfer.errors import LoweringError
from arkinfer.tir import opencl_text
from arkinfer.tir.schedule import GENERIC, Schedule
from arkinfer.tir.sizes import Size

_OPERATORS = {
    tirx.Add: "+",
    tirx.Sub: "-",
    tirx.Mul: "*",
    tirx.FloorDiv: "/",
    tirx.FloorMod: "%",
    tirx.Min: "min",
    tirx.Max: "max",
}
_AXES = ("blockIdx.x", "blockIdx.y", "blockIdx.z")


@dataclass(frozen=True)
class Kernel:
    """One entry point of emitted source.

    Attributes:
        name: of the function in the source.
        arguments: names of its buffers and int32 scalars, in the function's order.
        scalars: those of ``arguments`` that are scalars.
        groups: groups on three axes, from scalars.
        lanes: lanes of a group.
        shared_bytes: of shared memory of a group.
        module: which module of the target's code holds it; what is emitted is the first.
        dynamic_bytes: of shared memory that the launch has to ask for.
        images: those of ``arguments`` that are images of four words a place.
    """

    name: str
    arguments: tuple[str, ...]
    scalars: frozenset[str]
    groups: tuple[Size, Size, Size]
    lanes: int
    shared_bytes: int
    module: int = 0
    dynamic_bytes: int = 0
    images: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Emitted:
    """Source of some functions, and their entry points by the names of the descriptions.

    ``extensions`` are those of OpenCL that the source needs.
    """

    source: str
    kernels: Mapping[str, Kernel]
    extensions: tuple[str, ...] = ()


def device_target(kind: str) -> tvm.target.Target:
    """The generic target of a kind, as seen from this machine."""
    return tvm.target.Target({"kind": kind}, host={"kind": "llvm"})


def emit(
    functions: Mapping[str, Any], target: tvm.target.Target, schedule: Schedule = GENERIC
) -> Emitted:
    """Compile descriptions for a device.

    Args:
        functions: ``tirx.PrimFunc`` by the name that each gets.
        target: of a kind whose code generator gives source.
        schedule: that the descriptions were made with.

    Raises:
        LoweringError: TVM cannot compile one of them, with its message.
    """
    try:
        emitted = _emit(functions, target)
    except (RuntimeError, ValueError, TypeError) as error:
        raise LoweringError(f"TVM cannot compile for {target.kind.name}: {error}") from error
    return _finished(emitted, schedule) if target.kind.name == "opencl" else emitted


def _finished(emitted: Emitted, schedule: Schedule) -> Emitted:
    texts = opencl_text.bodies(emitted.source)
    return Emitted(
        opencl_text.finish(emitted.source, schedule),
        {
            name: replace(kernel, images=opencl_text.images_of(texts[kernel.name]))
            for name, kernel in emitted.kernels.items()
        },
        opencl_text.extensions_of(emitted.source, schedule),
    )


def _emit(functions: Mapping[str, Any], target: tvm.target.Target) -> Emitted:
    named = {name: f.with_attr("global_symbol", name) for name, f in functions.items()}
    module = tirx.transform.BindTarget(target)(tvm.IRModule(named))
    pipeline, _, finish_device = tirx.get_default_tir_pipeline(target)
    # Common subexpressions would become variables that the source then does not use.
    with tvm.transform.PassContext(config={"tirx.disable_cse_tir": True}):
        module = pipeline(module)
        _, devices = split_host_device_mods(module)
        (bound, device), *_ = devices.items()
        source = codegen_build(finish_device()(device), bound).inspect_source()
    # Read before the last passes, which turn the quotients in extents into shifts.
    entries = {str(gv.name_hint): function for gv, function in device.functions.items()}
    return Emitted(source, {name: _kernel(entries, f"{name}_kernel") for name in functions})


def _kernel(entries: Mapping[str, Any], name: str) -> Kernel:
    function = entries[name]
    arguments = tuple(str(p.name).removesuffix("_ptr") for p in function.params)
    scalars = frozenset(str(p.name) for p in function.params if not str(p.name).endswith("_ptr"))
    extents: dict[str, Size] = {}
    shared = _walk(function.body, extents)
    groups = tuple(extents.get(axis, 1) for axis in _AXES)
    lanes = extents.get("threadIdx.x", 1)
    if not isinstance(lanes, int):
        raise LoweringError(f"{name} has {lanes} lanes", "a constant number")
    return Kernel(name, arguments, scalars, (groups[0], groups[1], groups[2]), lanes, shared)


def _walk(node: Any, extents: dict[str, Size]) -> int:
    """Collect thread extents; returns the bytes of shared memory below a statement."""
    if isinstance(node, tirx.SeqStmt):
        return sum(_walk(part, extents) for part in node.seq)
    if isinstance(node, tirx.AttrStmt) and node.attr_key == "thread_extent":
        extents[str(node.node.thread_tag)] = size_of(node.value)
    shared = 0
    if isinstance(node, tirx.AllocBuffer) and node.buffer.scope().startswith("shared"):
        shared = tvm.DataType(node.buffer.dtype).bits // 8
        for extent in node.buffer.shape:
            shared *= int(extent)
    for part in ("body", "then_case", "else_case"):
        inner = getattr(node, part, None)
        if inner is not None:
            shared += _walk(inner, extents)
    return shared


def size_of(expression: Any) -> Size:
    """A TIR expression as data.

    Raises:
        LoweringError: it holds an operator that launch tables do not have.
    """
    if isinstance(expression, int):
        return expression
    if isinstance(expression, tirx.IntImm):
        return int(expression.value)
    if isinstance(expression, tirx.Var):
        return str(expression.name)
    operator = _OPERATORS.get(type(expression))
    if operator is None:
        raise LoweringError(f"{expression} in a launch", "sums, products, quotients and extrema")
    return [operator, size_of(expression.a), size_of(expression.b)]
