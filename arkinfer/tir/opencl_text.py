"""What TVM cannot say in OpenCL C, put into the text that it emits.

Descriptions call OpenCL's functions by name (``sub_group_reduce_add``, ``read_imageui``). Here
the parameters that these read become images, and kernels get the size of their sub-groups.
"""

from __future__ import annotations

import re

from arkinfer.tir.schedule import Schedule

_HEAD = re.compile(r"__kernel void (\w+)\(")


def images_of(body: str) -> frozenset[str]:
    """The arguments that a kernel's text reads as images."""
    return frozenset(re.findall(r"read_imageui\((\w+?)_ptr\b", body))


def bodies(source: str) -> dict[str, str]:
    """The text of each kernel, from its name on."""
    return {
        match[1]: part for part in _split(source) if "{" in part and (match := _HEAD.match(part))
    }


def extensions_of(source: str, schedule: Schedule) -> tuple[str, ...]:
    """Those that a source needs, of those that its schedule may use."""
    used = {
        name
        for name in schedule.extensions
        if ("half" in source if name == "cl_khr_fp16" else "sub_group_" in source)
    }
    return tuple(name for name in schedule.extensions if name in used)


def finish(source: str, schedule: Schedule) -> str:
    """The source as drivers take it."""
    texts = bodies(source)
    parts = []
    for part in _split(source):
        match = _HEAD.match(part)
        if match:
            for name in images_of(texts[match[1]]):
                words = f"__global uint* restrict {name}_ptr"
                part = part.replace(words, f"__read_only image1d_buffer_t {name}_ptr", 1)
            if schedule.attribute and "sub_group_" in texts[match[1]]:
                part = f"__attribute__(({schedule.attribute}))\n{part}"
        parts.append(part)
    # TVM's own text enables fp16.
    wanted = [name for name in extensions_of(source, schedule) if name != "cl_khr_fp16"]
    pragmas = [f"#pragma OPENCL EXTENSION {name} : enable\n" for name in wanted]
    return "".join(pragmas + parts)


def _split(source: str) -> list[str]:
    return re.split(r"(?=__kernel void )", source)
