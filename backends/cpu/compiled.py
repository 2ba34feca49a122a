"""Kernels for a CPU that TVM compiles ahead of time, and the steps of a plan that they compute.

``kernels.so`` holds their code, ``kernels.json`` which of its functions make up which step
(docs/bundle.md). They read and write what the runtime's own kernels do, so either may compute
a step; ``arkinfer tune`` finds out which is faster.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from arkinfer.backends._device.launches import Kernels, Launch, Scratch, Source
from arkinfer.backends._steps.plan import Cache, Plan, Step, View, WeightRef
from arkinfer.backends.cpu import link
from arkinfer.bundle_writer import BundleWriter
from arkinfer.graph.graph import WeightSpec, input_names
from arkinfer.kernels.embed import launches_cpu as embed
from arkinfer.kernels.matmul import launches_cpu as matmul
from arkinfer.tir import host
from arkinfer.tir.caches import Caches
from arkinfer.tir.loops import Loops
from arkinfer.tir.panels import Panels
from arkinfer.tir.sizes import Size

VERSION = 1
# The operators that read weights, which lie otherwise on other devices.
_PANELS: Mapping[str, Any] = {"embed": embed, "matmul": matmul}


@dataclass
class CpuKernels(Kernels):
    """The kernels of a plan of the cpu backend: weights in panels, halves as they are."""

    def caches(self, cache: Cache) -> Caches:
        """The layout of a cache."""
        return Caches(self.dtype, cache.kv_heads, cache.head_dim, halves=True)

    def name(self, describe: Callable[..., Any], *arguments: Any) -> str:
        """The name of a description, or of the CPU's own where its operator has one.

        That is the function of the same name in ``kernels/OPERATOR/tir_cpu.py``.
        """
        module = f"{describe.__module__}_cpu"
        if find_spec(module) is not None:
            describe = getattr(import_module(module), describe.__name__, describe)
        return super().name(describe, *arguments)

    def launches(self, step: Step) -> list[Launch]:
        """What a step becomes."""
        module = _PANELS.get(step.kernel)
        if module is None:
            return super().launches(step)
        spec = self.spec(step)
        made: list[Launch] = module.launches(
            self, step, Panels(spec.shape[0], spec.shape[1], spec.storage)
        )
        return made

    def spec(self, step: Step) -> WeightSpec:
        """What the codes of a step belong to."""
        codes = step.operands["codes"]
        assert isinstance(codes, WeightRef)
        return self.specs[codes.name]


def write(
    writer: BundleWriter,
    plan: Plan,
    specs: Mapping[str, WeightSpec],
    isa: str,
    dtype: Literal["f32", "f16"],
    chunk: int,
) -> None:
    """Compile the kernels of a plan and write ``kernels.so`` and ``kernels.json``.

    Args:
        writer: of the bundle.
        plan: whose steps leave norms and gates to themselves.
        specs: its weights by name.
        isa: a key of :data:`arkinfer.tir.host.TARGETS`.
        dtype: what the caches will hold.
        chunk: the most tokens of a step.

    Raises:
        LoweringError: TVM cannot compile a kernel.
        LinkerError: nothing here links for that architecture.
    """
    by_codes = {input_names(spec)[0]: spec for spec in specs.values()}
    kernels = CpuKernels(Loops("llvm"), dtype, chunk, by_codes)
    table = _Table(kernels)
    body, head = ([table.step(step) for step in steps] for steps in (plan.body, plan.head))
    content = {
        "version": VERSION,
        "isa": isa,
        "kv": {"f32": "fp32", "f16": "fp16"}[dtype],
        "workspace": max((host.workspace(f) for f in kernels.functions.values()), default=0),
        "scratch": list(table.scratch.values()),
        "shapes": list(table.shapes),
        "body": body,
        "head": head,
    }
    target = host.TARGETS[isa]
    with tempfile.TemporaryDirectory() as folder:
        code = Path(folder) / "kernels.o"
        host.compile_object(kernels.functions, target, code)
        link.shared_library(code, writer.folder / "kernels.so", target.arch)
    with writer.open_file("kernels.json") as file:
        file.write(json.dumps(content, indent=1).encode())


class _Table:
    """Collects what ``kernels.json`` holds."""

    def __init__(self, kernels: CpuKernels) -> None:
        self._kernels = kernels
        self.scratch: dict[tuple[str, str], Size] = {}
        self.shapes: dict[str, int] = {}

    def step(self, step: Step) -> dict[str, Any]:
        """One step's entry."""
        launches = self._kernels.launches(step)
        shape = " ".join([step.kernel, *self._sizes(step)])
        return {
            "shape": self.shapes.setdefault(shape, len(self.shapes)),
            "launches": [self._launch(step, launch) for launch in launches],
        }

    def _sizes(self, step: Step) -> Iterator[str]:
        """What tells one use of a kernel from another, in words."""
        if "codes" in step.operands:
            spec = self._kernels.spec(step)
            yield f"{spec.shape[0]} x {spec.shape[1]}"
            yield str(spec.storage)
            return
        for name, operand in step.operands.items():
            if isinstance(operand, View) and name != "table":
                yield f"{name} {operand.columns}"

    def _launch(self, step: Step, launch: Launch) -> dict[str, Any]:
        arguments: list[Any] = []
        for name in host.parameters(self._kernels.functions[launch.kernel]):
            if name in ("tokens", "past", "total", "capacity"):
                arguments.append({"scalar": name})
            elif name in launch.sources:
                arguments.append(self._argument(step, launch.sources[name]))
            else:
                arguments.append(None)
        return {
            "function": launch.kernel,
            "least": launch.least,
            "most": launch.most,
            "groups": host.groups(self._kernels.functions[launch.kernel]),
            "arguments": arguments,
        }

    def _argument(self, step: Step, source: Source) -> dict[str, Any]:
        if isinstance(source, Scratch):
            key = (source.name, str(source.size))
            if key not in self.scratch:
                self.scratch[key] = source.size
            return {"scratch": list(self.scratch).index(key)}
        names = [name for name, operand in step.operands.items() if operand == source]
        return {"operand": names[0]}
