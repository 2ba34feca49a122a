"""From descriptions to an object file for a CPU, which needs no TVM when it runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tvm
from tvm import s_tir, tirx
from tvm.tirx.build import codegen_build, split_host_device_mods

from arkinfer.errors import LoweringError
from arkinfer.tir.emit import size_of
from arkinfer.tir.sizes import Size


@dataclass(frozen=True)
class HostTarget:
    """What code is generated for: the instruction set of a kernel set of the runtime.

    Attributes:
        arch: ``"x86_64"`` or ``"aarch64"``.
        features: what LLVM may use.
    """

    arch: str
    features: tuple[str, ...]

    def target(self) -> tvm.target.Target:
        """As TVM wants it."""
        return tvm.target.Target(
            {
                "kind": "llvm",
                "mtriple": f"{self.arch}-linux-gnu",
                "mcpu": "x86-64" if self.arch == "x86_64" else "generic",
                "mattr": [f"+{feature}" for feature in self.features],
            }
        )


_ALIGNMENT = 64  # of buffers of a workspace
_AVX2 = ("avx2", "fma", "f16c")
_AVX512 = (*_AVX2, "avx512f", "avx512bw", "avx512vl", "avx512dq")
TARGETS: Mapping[str, HostTarget] = {
    "avx2": HostTarget("x86_64", _AVX2),
    "avx512": HostTarget("x86_64", _AVX512),
    "neon": HostTarget("aarch64", ("neon",)),
    "dotprod": HostTarget("aarch64", ("neon", "dotprod")),
}
"""By the kernel set that a CPU must have (docs/platforms.md)."""


def compile_object(functions: Mapping[str, Any], target: HostTarget, path: Path) -> None:
    """Write an object with the functions, which keep their parameters in order.

    A function ``f`` gets the symbol ``__tvm_ffi_f``.

    Raises:
        LoweringError: TVM cannot compile one of them, with its message.
    """
    module = tvm.IRModule(
        {name: fuse_groups(f).with_attr("global_symbol", name) for name, f in functions.items()}
    )
    bound = target.target()
    # The runtime calls with what the plan says; checks would need functions of TVM's runtime.
    options = {"tirx.disable_assert": True}
    try:
        with tvm.transform.PassContext(config=options):
            lower, finish_host, _ = tirx.get_default_tir_pipeline(bound)
            module = lower(tirx.transform.BindTarget(bound.with_host(bound))(module))
            module, _ = split_host_device_mods(module)
            for name, function in module.functions.items():
                module[name] = function.with_body(_on_stack(function.body))
            codegen_build(finish_host()(module), bound).write_to_file(str(path))
    except (RuntimeError, ValueError, TypeError) as error:
        raise LoweringError(f"TVM cannot compile for {target.arch}: {error}") from error


def _on_stack(node: Any) -> Any:
    """Put local buffers on the stack, where LLVM makes registers of them.

    TVM would ask its runtime for their memory: on CPUs, it takes no buffer for a local one.
    """
    if isinstance(node, tirx.AllocBuffer) and node.buffer.scope() == "local":
        return tirx.AllocBuffer(node.buffer, {"disable_lower_builtin": tirx.IntImm("bool", 1)})
    if isinstance(node, tirx.SeqStmt):
        return tirx.SeqStmt([_on_stack(part) for part in node.seq])
    if isinstance(node, tirx.For):
        body = _on_stack(node.body)
        return tirx.For(
            node.loop_var, node.min, node.extent, node.kind, body, annotations=node.annotations
        )
    if isinstance(node, tirx.IfThenElse):
        other = node.else_case
        then = _on_stack(node.then_case)
        return tirx.IfThenElse(node.condition, then, None if other is None else _on_stack(other))
    if isinstance(node, tirx.AttrStmt):
        return tirx.AttrStmt(node.node, node.attr_key, node.value, _on_stack(node.body))
    return node


def workspace(function: Any) -> int:
    """Bytes that one thread needs for the buffers of a description, at most."""
    total = 0

    def add(buffers: Any) -> None:
        nonlocal total
        for buffer in buffers:
            if buffer.scope() == "global":
                size = tvm.DataType(buffer.dtype).bits // 8
                for extent in buffer.shape:
                    size *= int(extent)
                total += -(-size // _ALIGNMENT) * _ALIGNMENT

    def walk(node: Any) -> None:
        if isinstance(node, s_tir.SBlockRealize):
            add(node.block.alloc_buffers)
            walk(node.block.body)
        elif isinstance(node, tirx.SeqStmt):
            for part in node.seq:
                walk(part)
        elif isinstance(node, tirx.AllocBuffer):
            add([node.buffer])
        for part in ("body", "then_case", "else_case"):
            inner = getattr(node, part, None)
            if inner is not None:
                walk(inner)

    walk(function.body)
    return total


def groups(function: Any) -> Size:
    """How often the parallel loop of a description runs, from its scalars."""
    return size_of(fuse_groups(function).body.block.body.extent)


def parameters(function: Any) -> tuple[str, ...]:
    """The names of a description's arguments, in order."""
    return tuple(str(parameter.name) for parameter in function.params)


def fuse_groups(function: Any) -> Any:
    """Make one parallel loop of the loops over groups, the outer one of which is parallel.

    One token with many heads would else keep a single thread busy.
    """

    root = function.body.block
    outer = root.body
    inner = outer.body
    if not isinstance(inner, tirx.For):
        return function
    both = tirx.Var("group", "int32")
    body = tirx.SeqStmt(
        [
            tirx.Bind(outer.loop_var, both // inner.extent),
            tirx.Bind(inner.loop_var, both % inner.extent),
            inner.body,
        ]
    )
    loop = tirx.For(both, 0, outer.extent * inner.extent, tirx.ForKind.PARALLEL, body)
    block = s_tir.SBlock(
        [], [], [], root.name_hint, loop, root.init, root.alloc_buffers, root.match_buffers
    )
    return function.with_body(s_tir.SBlockRealize([], True, block))
