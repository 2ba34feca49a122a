"""Runs emitted Metal kernels as C++ on this CPU: their text, under a stub of Metal's library."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
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
static void body_{name}(int lane, const void* given) {{
  const Call* call = static_cast<const Call*>(given);
  {name}({buffers}, *reinterpret_cast<const {name}_args_t*>(call->scalars),
         {vector}{{{group}}}, {vector}{{{lane}}});
}}
extern "C" int run_{name}(void** buffers, const int* scalars, const int* groups, int lanes) {{
  return run(buffers, scalars, groups, lanes, body_{name}, {meets});
}}
"""
_RUN = """
struct Call {
  void** buffers;
  const int* scalars;
  uint x, y, z;
};
static int run(void** buffers, const int* scalars, const int* groups, int lanes,
               void (*body)(int, const void*), bool meets) {
  Call call = {buffers, scalars, 0, 0, 0};
  for (call.z = 0; call.z < (uint)groups[2]; call.z++)
    for (call.y = 0; call.y < (uint)groups[1]; call.y++)
      for (call.x = 0; call.x < (uint)groups[0]; call.x++) {
        if (meets) {
          if (!metal::group.run(lanes, body, &call)) return 1;
        } else {
          for (int lane = 0; lane < lanes; lane++) body(lane, &call);
        }
      }
  return 0;
}
"""


def compiler() -> str | None:
    """A C++ compiler, if there is one."""
    return shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")


class MetalText:
    """Metal source, compiled for this CPU."""

    def __init__(self, text: str) -> None:
        self.entries = source.entries(text)
        calls = [_call(name, entry, text) for name, entry in self.entries.items()]
        with tempfile.TemporaryDirectory() as folder:
            self._library = _build(Path(folder), "".join([text, _RUN, *calls]))

    def launch(
        self,
        name: str,
        buffers: Sequence[Array],
        scalars: Sequence[int],
        groups: Sequence[int],
        lanes: int,
    ) -> None:
        """Run a kernel over arrays, as the launcher binds them (native/src/device/metal_run.mm)."""
        pairs = [number for value in scalars for number in (value, 0)]
        code = getattr(self._library, f"run_{name}")(
            (ctypes.c_void_p * len(buffers))(*(array.ctypes.data for array in buffers)),
            (ctypes.c_int * len(pairs))(*pairs),
            (ctypes.c_int * 3)(*groups),
            lanes,
        )
        assert code == 0, f"threads of a group of {name} met at different barriers"


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
        compiled = MetalText(text)
        entry = compiled.entries[kernel.name]
        scalars = {name: v for name, v in arguments.items() if isinstance(v, int)}
        held = {name: np.array(arguments[name]) for name in entry.buffers}
        groups = [evaluate(size, scalars) for size in kernel.groups]
        given = [scalars[name] for name in entry.scalars]
        compiled.launch(kernel.name, list(held.values()), given, groups, kernel.lanes)
        return held


def _call(name: str, entry: source.Entry, text: str) -> str:
    buffers = ", ".join(
        f"static_cast<{element}*>(call->buffers[{i}])" for i, element in enumerate(entry.elements)
    )
    own = text[text.index(f"kernel void {name}(") + 1 :].partition("kernel void ")[0]
    return _CALL.format(
        name=name,
        meets=str("threadgroup_barrier" in own).lower(),
        buffers=buffers,
        vector=_VECTORS[entry.axes],
        group=", ".join(f"call->{axis}" for axis in "xyz"[: entry.axes]),
        lane=", ".join(["(uint)lane", "0u", "0u"][: entry.axes]),
    )


def _build(folder: Path, text: str) -> ctypes.CDLL:
    (folder / "kernels.cc").write_text(text)
    library = folder / "kernels.so"
    command = [compiler() or "c++", "-std=c++17", "-O1", "-fPIC", "-shared", "-w", "-I", str(STUB)]
    # A product and a sum must not become one operation: results would differ by the compiler.
    command += ["-ffp-contract=off", str(folder / "kernels.cc"), "-o", str(library)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[:4000]
    return ctypes.CDLL(str(library))
