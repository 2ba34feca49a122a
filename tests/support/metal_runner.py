"""Runs emitted Metal kernels as C++ on this CPU: their text, under a stub of Metal's library."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from arkinfer.backends.metal import source
from arkinfer.tir.emit import device_target, emit
from arkinfer.tir.loops import Loops
from arkinfer.tir.sizes import evaluate
from tests.support.tir_runner import Arguments, Array

STUB = Path(__file__).parent / "metal_cpu"
_VECTORS = {1: "uint", 2: "uint2", 3: "uint3"}
_CALL = """
struct Call {{
  void** buffers;
  const int* scalars;
  uint x, y, z;
}};

static void body(int lane, const void* given) {{
  const Call* call = static_cast<const Call*>(given);
  {name}({buffers}, *reinterpret_cast<const {name}_args_t*>(call->scalars),
         {vector}{{{group}}}, {vector}{{{lane}}});
}}

extern "C" int run(void** buffers, const int* scalars, const int* groups, int lanes) {{
  Call call = {{buffers, scalars, 0, 0, 0}};
  for (call.z = 0; call.z < (uint)groups[2]; call.z++)
    for (call.y = 0; call.y < (uint)groups[1]; call.y++)
      for (call.x = 0; call.x < (uint)groups[0]; call.x++) {{
        if ({meets}) {{
          if (!metal::group.run(lanes, body, &call)) return 1;
        }} else {{
          for (int lane = 0; lane < lanes; lane++) body(lane, &call);
        }}
      }}
  return 0;
}}
"""


def compiler() -> str | None:
    """A C++ compiler, if there is one."""
    return shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")


class MetalRunner:
    """See :class:`tests.support.tir_runner.Runner`."""

    loops = Loops("metal")

    def __init__(self) -> None:
        self._target = device_target("metal")

    def run(self, function: Any, arguments: Arguments) -> dict[str, Array]:
        """Call with arrays and scalars by name; gives the arrays back as they then are."""
        emitted = emit({"kernel": function}, self._target)
        kernel = emitted.kernels["kernel"]
        text = source.join(emitted.source)
        source.check(text, emitted.kernels)
        entry = source.entries(text)[kernel.name]
        scalars = {name: v for name, v in arguments.items() if isinstance(v, int)}
        held = {name: np.array(arguments[name]) for name in entry.buffers}
        pairs = [number for name in entry.scalars for number in (scalars[name], 0)]
        groups = [evaluate(size, scalars) for size in kernel.groups]
        with tempfile.TemporaryDirectory() as folder:
            library = _build(
                Path(folder),
                text + _call(kernel.name, entry, "threadgroup_barrier" in text),
                "kernels",
            )
            pointers = [array.ctypes.data for array in held.values()]
            code = library.run(
                (ctypes.c_void_p * len(pointers))(*pointers),
                (ctypes.c_int * len(pairs))(*pairs),
                (ctypes.c_int * 3)(*groups),
                kernel.lanes,
            )
        assert code == 0, "threads of a group met at different barriers"
        return held


def _call(name: str, entry: source.Entry, barriers: bool) -> str:
    buffers = ", ".join(
        f"static_cast<{element}*>(call->buffers[{i}])" for i, element in enumerate(entry.elements)
    )
    return _CALL.format(
        name=name,
        meets=int(barriers),
        buffers=buffers,
        vector=_VECTORS[entry.axes],
        group=", ".join(f"call->{axis}" for axis in "xyz"[: entry.axes]),
        lane=", ".join(["(uint)lane", "0u", "0u"][: entry.axes]),
    )


def _build(folder: Path, text: str, name: str) -> ctypes.CDLL:
    (folder / f"{name}.cc").write_text(text)
    library = folder / f"{name}.so"
    command = [compiler() or "c++", "-std=c++17", "-O1", "-fPIC", "-shared", "-w", "-I", str(STUB)]
    # A product and a sum must not become one operation: results would differ by the compiler.
    command += ["-ffp-contract=off", str(folder / f"{name}.cc"), "-o", str(library)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[:4000]
    return ctypes.CDLL(str(library))
