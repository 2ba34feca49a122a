"""``plan.cpu.json``: the CPU's plan in a bundle for a device (docs/bundle.md).

Its weights are not stored: it says what each is made from, and the runtime repacks those of the
device when the CPU is chosen.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from arkinfer.backends import CompileOptions
from arkinfer.backends._device.weights import matrix_entry, parts_of
from arkinfer.backends.cpu import planned
from arkinfer.backends.cpu import weights as panels
from arkinfer.bundle_steps import HOST_PLAN
from arkinfer.bundle_writer import BundleWriter
from arkinfer.errors import UnsupportedQuantizationError
from arkinfer.graph.graph import Graph, WeightSpec
from arkinfer.manifest import HostMemory


@dataclass(frozen=True)
class HostPlan:
    """The file's content, and what running it needs beside the caches."""

    content: dict[str, Any]
    memory: HostMemory

    def write(self, writer: BundleWriter) -> None:
        """Write the file."""
        writer.host_memory = self.memory
        with writer.open_file(HOST_PLAN) as file:
            file.write(json.dumps(self.content, indent=1).encode())


def host_plan(graph: Graph, options: CompileOptions, largest: int = 0) -> HostPlan | None:
    """The CPU's plan for a graph whose weights lie as a device wants them.

    Args:
        largest: bytes of one range of the device's weights at most; 0: any number.

    Returns:
        None where the CPU's panels cannot hold a weight that the device's layout holds.

    Raises:
        LoweringError: the graph holds an operator or a structure without a kernel.
    """
    try:
        content, arena_bytes, specs, vectors, _ = planned(graph, options)
    except UnsupportedQuantizationError:
        return None
    last = content["weights"][-1] if content["weights"] else {"offset": 0, "bytes": 0}
    content["weights_bytes"] = last["offset"] + last["bytes"]
    content["sources"] = _sources(specs, vectors, largest)
    return HostPlan(content, HostMemory(content["weights_bytes"], arena_bytes))


def _sources(
    specs: Sequence[WeightSpec], vectors: Mapping[str, NDArray[Any]], largest: int
) -> list[dict[str, Any]]:
    """For each matrix how it lies on the device, for each vector its name, which is the same."""
    sources: list[dict[str, Any]] = []
    for spec in specs:
        if len(spec.shape) == 1:
            sources.append({"vector": spec.name})
            continue
        names = [tensor.name for tensor in panels.tensors_of(spec)]
        made = dict(zip(("codes", "scales", "offsets"), names, strict=False))
        sources.append({"matrix": matrix_entry(parts_of(spec, largest)), **made})
    return sources + [{"vector": name} for name in vectors]
