"""Metal source as TVM emits it: one text for all kernels, and whether it is what launches expect.

A kernel's buffers are ``[[buffer(0)]]``, ``[[buffer(1)]]``, ... in the order of its arguments; its
int32 scalars lie behind them in one structure, eight bytes for each.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from arkinfer.errors import LoweringError
from arkinfer.tir.emit import Kernel

_SHARED_LINES = """#include <metal_stdlib>
using namespace metal;

union __TVMArgUnion {
 int v_int[2];
};
"""
_ENTRY = re.compile(r"^kernel void (\w+)\(([^{]*)\) \{$", re.MULTILINE)
_BUFFER = re.compile(r"device (\w+)\* (\w+) \[\[ buffer\((\d+)\) \]\]")
_SCALARS = re.compile(r"constant (\w+)& arg \[\[ buffer\((\d+)\) \]\]")
_PLACE = re.compile(
    r"(uint[23]?) (\w+) \[\[(threadgroup_position_in_grid|thread_position_in_\w+)\]\]"
)
_FIELD = re.compile(r"int (\w+)\[2\];")
_THREADGROUP = re.compile(r"threadgroup (\w+) \w+\[(\d+)\];")
_WORD_TYPES = ("float", "int", "uint")


@dataclass(frozen=True)
class Entry:
    """What one entry point declares.

    Attributes:
        buffers: names, by their number.
        elements: their types.
        scalars: names, in the order of the structure.
        threadgroup_bytes: of threadgroup memory.
        axes: that positions of groups and threads have.
    """

    buffers: tuple[str, ...]
    elements: tuple[str, ...]
    scalars: tuple[str, ...]
    threadgroup_bytes: int
    axes: int


def join(source: str) -> str:
    """One text that compiles whole: TVM repeats for every kernel what may stand there once."""
    if _SHARED_LINES not in source:
        raise LoweringError("TVM's Metal source begins in another way")
    return _SHARED_LINES + source.replace(_SHARED_LINES, "")


def entries(text: str) -> dict[str, Entry]:
    """The entry points of a text, by name.

    Raises:
        LoweringError: one that declares its arguments in another way, or brackets that do not
            close.
    """
    for left, right in ("()", "[]", "{}"):
        if text.count(left) != text.count(right):
            raise LoweringError(f"Metal source with {left} and {right} that do not close")
    heads = list(_ENTRY.finditer(text))
    ends = [head.start() for head in heads[1:]] + [len(text)]
    found: dict[str, Entry] = {}
    for head, end in zip(heads, ends, strict=True):
        name = head.group(1)
        if name in found:
            raise LoweringError(f"Metal source with two entry points {name}")
        found[name] = _entry(name, head.group(2), text, text[head.end() : end])
    return found


def _entry(name: str, arguments: str, text: str, body: str) -> Entry:
    buffers, scalars = _BUFFER.findall(arguments), _SCALARS.findall(arguments)
    places = _PLACE.findall(arguments)
    numbers = [int(number) for _, _, number in buffers] + [int(number) for _, number in scalars]
    if (
        numbers != list(range(len(numbers)))
        or len(scalars) != 1
        or len(numbers) + len(places) != arguments.count("[[")
        or any(element not in _WORD_TYPES for element, _, _ in buffers)
        or len({kind for kind, _, _ in places}) != 1
    ):
        raise LoweringError(f"Metal source of {name} declares its arguments in another way")
    struct = re.search(rf"^struct {scalars[0][0]} \{{([^}}]*)\}};$", text, re.MULTILINE)
    memory = _THREADGROUP.findall(body)
    if struct is None or any(element not in _WORD_TYPES for element, _ in memory):
        raise LoweringError(f"Metal source of {name} has memory of another type")
    return Entry(
        buffers=tuple(buffer.removesuffix("_ptr") for _, buffer, _ in buffers),
        elements=tuple(element for element, _, _ in buffers),
        scalars=tuple(_FIELD.findall(struct.group(1))),
        threadgroup_bytes=sum(4 * int(count) for _, count in memory),
        axes=int(places[0][0].removeprefix("uint") or 1),
    )


def check(text: str, kernels: Mapping[str, Kernel]) -> None:
    """That a text has one entry point per kernel, with the arguments that launches bind.

    Raises:
        LoweringError: names the kernel that differs, and in what.
    """
    found = entries(text)
    names = {kernel.name for kernel in kernels.values()}
    if names != found.keys():
        raise LoweringError(
            f"Metal source with the entry points {', '.join(sorted(found))}"[:400],
            f"{', '.join(sorted(names))}"[:400],
        )
    for kernel in kernels.values():
        entry = found[kernel.name]
        if (*entry.buffers, *entry.scalars) != kernel.arguments:
            raise LoweringError(
                f"{kernel.name} with the arguments {', '.join(entry.buffers + entry.scalars)}",
                ", ".join(kernel.arguments),
            )
        if entry.threadgroup_bytes != kernel.shared_bytes:
            raise LoweringError(
                f"{kernel.name} with {entry.threadgroup_bytes} bytes of threadgroup memory",
                str(kernel.shared_bytes),
            )
