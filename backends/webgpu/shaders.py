"""WGSL as TVM emits it: one module per kernel, and what each declares.

A kernel's buffers are bindings 0, 1, ... in the order of its arguments. Its scalars follow in a
uniform structure of 32-bit numbers, with the last group on the x axis behind them: TVM folds groups
on x beyond what a dispatch may have into the z axis.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from arkinfer.errors import InvalidBundleError, LoweringError

FOLDED = "packGridDimX"
"""The last field of the uniform structure: groups on the x axis, less one."""
_HEADER = "// kernel "
_MODULE = re.compile(r"^// Function: (\w+)\n//-+\n", re.MULTILINE)
_BUFFER = re.compile(r"@group\(0\) @binding\((\d+)\) var<storage, (read|read_write)> (\w+) :")
_UNIFORM = re.compile(r"struct PODArgs \{([^}]*)\}\s*@group\(0\) @binding\((\d+)\) var<uniform>")
_SHARED = re.compile(r"var<workgroup> \w+ : array<(\w+), (\d+)>")
_SIZE = re.compile(r"@workgroup_size\((\d+), (\d+), (\d+)\)")
_WORDS = {"f32": 4, "i32": 4, "u32": 4}


@dataclass(frozen=True)
class Shader:
    """One kernel.

    Attributes:
        name: of the module and of its entry point.
        source: of the module.
        buffers: names of its storage buffers, in the order of bindings.
        written: those of ``buffers`` that it writes.
        scalars: names of its 32-bit scalars in the uniform structure.
        lanes: invocations of a group.
        shared_bytes: of workgroup memory.
    """

    name: str
    source: str
    buffers: tuple[str, ...]
    written: frozenset[str]
    scalars: tuple[str, ...]
    lanes: int
    shared_bytes: int


def from_tvm(source: str) -> dict[str, Shader]:
    """The kernels in the source that TVM's module shows, which repeats their headers.

    Raises:
        LoweringError: it is not of the form that this module knows.
    """
    parts = _MODULE.split(source)
    found = {name: text.strip() + "\n" for name, text in _pairs(parts[1:]) if text.strip()}
    shaders: dict[str, Shader] = {}
    for name, text in found.items():
        shader = _parse(name, text)
        if shader is None:
            raise LoweringError(f"TVM's WGSL of {name} has another form")
        shaders[name] = shader
    return shaders


def join(shaders: Mapping[str, Shader]) -> str:
    """The content of ``kernels.wgsl``."""
    return "\n".join(f"{_HEADER}{shader.name}\n{shader.source}" for shader in shaders.values())


def split(text: str) -> dict[str, Shader]:
    """The kernels of ``kernels.wgsl``.

    Raises:
        InvalidBundleError: a part that declares its arguments in another way.
    """
    parts = re.split(rf"^{_HEADER}(\w+)\n", text, flags=re.MULTILINE)
    shaders: dict[str, Shader] = {}
    for name, source in _pairs(parts[1:]):
        shader = _parse(name, source)
        if shader is None:
            raise InvalidBundleError(
                f"kernels.wgsl: {name} declares its arguments in another way than TVM does",
                "buffers from binding 0 on, and a uniform structure behind them",
                "compile the bundle again",
            )
        shaders[name] = shader
    return shaders


def _pairs(parts: list[str]) -> Iterable[tuple[str, str]]:
    return zip(parts[0::2], parts[1::2], strict=True)


def _parse(name: str, source: str) -> Shader | None:
    buffers = _BUFFER.findall(source)
    uniform, size = _UNIFORM.search(source), _SIZE.search(source)
    if uniform is None or size is None or f"fn {name}(" not in source:
        return None
    fields = [field.split(":")[0].strip() for field in uniform.group(1).split(",")]
    places = [int(place) for place, _, _ in buffers] + [int(uniform.group(2))]
    shared = _SHARED.findall(source)
    known = all(element in _WORDS for element, _ in shared)
    if places != list(range(len(buffers) + 1)) or fields[-1] != FOLDED or not known:
        return None
    names = [buffer.removesuffix("_ptr") for _, _, buffer in buffers]
    accesses = [access for _, access, _ in buffers]
    return Shader(
        name=name,
        source=source,
        buffers=tuple(names),
        written=frozenset(n for n, a in zip(names, accesses, strict=True) if a != "read"),
        scalars=tuple(fields[:-1]),
        lanes=math.prod(int(lanes) for lanes in size.groups()),
        shared_bytes=sum(_WORDS[element] * int(count) for element, count in shared),
    )
