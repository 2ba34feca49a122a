"""From a graph to a device's launches and source, and the writing of weights beside them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import tvm
from numpy.typing import NDArray

from arkinfer.backends import CompileOptions
from arkinfer.backends._device import limits, weights
from arkinfer.backends._device.host_plan import HostPlan, host_plan
from arkinfer.backends._device.launches import Kernels
from arkinfer.backends._device.plan import Writer
from arkinfer.backends._steps.lower import lower
from arkinfer.bundle_writer import BundleWriter
from arkinfer.checkpoint import Checkpoint
from arkinfer.devices import Device
from arkinfer.errors import InvalidOptionError
from arkinfer.graph.graph import Graph, WeightSpec
from arkinfer.tir.emit import Emitted, emit
from arkinfer.tir.loops import Loops
from arkinfer.tir.sizes import evaluate

# Rows of logits that one run of the head computes, when logits of many tokens are asked for.
OUTPUT_ROWS = 16
_CACHES = {None: "f16", "fp16": "f16", "fp32": "f32"}


@dataclass(frozen=True)
class Lowered:
    """What a device runs.

    Attributes:
        content: of the launch table (docs/bundle.md).
        emitted: source and entry points.
        weights_bytes: of ``weights.bin``.
        arena_bytes: of activations and scratch at the largest context.
        specs: weights in the order of ``weights.bin``.
        vectors: float32 vectors behind them.
        largest: bytes that a buffer holds at most; 0: any number.
        host: the CPU's plan for the same weights, where the bundle is to hold it.
    """

    content: dict[str, Any]
    emitted: Emitted
    weights_bytes: int
    arena_bytes: int
    specs: list[WeightSpec]
    vectors: Mapping[str, NDArray[np.float32]]
    largest: int = 0
    host: HostPlan | None = None

    def write(self, writer: BundleWriter, checkpoint: Checkpoint, table: str) -> None:
        """Write the launch table under a name, ``weights.bin``, and the CPU's plan."""
        writer.arena_bytes = self.arena_bytes
        if self.host is not None:
            self.host.write(writer)
        with writer.open_file(table) as file:
            file.write(json.dumps(self.content, indent=1).encode())
        with writer.open_file("weights.bin") as file:
            for spec in self.specs:
                weights.write_weight(file, spec, checkpoint, self.largest)
            for values in self.vectors.values():
                weights.write_vector(file, values)
            writer.weights_bytes = file.align(1)


def lower_for(
    graph: Graph,
    options: CompileOptions,
    loops: Loops,
    target: tvm.target.Target,
    *,
    device: Device | None = None,
    make: Callable[..., Kernels] = Kernels,
    keep_blocks: bool = False,
    with_host: bool = False,
) -> Lowered:
    """Lower a graph for a device, within its limits where it is given.

    Args:
        make: what chooses kernels; called with the first arguments of :class:`Kernels`.
        keep_blocks: as of :class:`Writer`.
        with_host: let the bundle run on the CPU too; for launchers that choose between both.

    Raises:
        LoweringError: it holds an operator or a structure without a kernel.
        UnsupportedQuantizationError: a weight that no device layout holds.
        InvalidOptionError: the KV cache is to have a type that device kernels do not read, or
            the context needs memory that the device does not give at once.
    """
    limit = device.limits if device else {}
    largest = limits.largest_weight(limit, loops.schedule)
    if options.kv not in _CACHES:
        raise InvalidOptionError(f"kv is {options.kv!r}", "fp16 or fp32, as devices have it")
    by_codes = {weights.codes_name(spec): spec for spec in graph.weights.values()}
    dtype: Any = _CACHES[options.kv]
    kernels = make(loops, dtype, options.chunk, by_codes, largest)
    plan, walk = lower(graph, computes=kernels.fuses)
    plan.body = kernels.arrange(plan.body)
    specs = list((walk.weights | graph.weights).values())
    tensors = [tensor for spec in specs for tensor in weights.tensors_of(spec, largest)]
    tensors += [weights.DeviceTensor(n, v.size * 4) for n, v in walk.vectors.items()]
    rows = min(OUTPUT_ROWS, options.chunk)
    table = Writer(plan, kernels, options.chunk, rows, keep_blocks)
    limits.check_memory(limit, table.sizes, options.context)
    emitted = emit(kernels.functions, target, loops.schedule)
    entries = {**emitted.kernels, **kernels.written}
    limits.check_kernels(limit, entries)
    laid_out = weights.lay_out(tensors)
    content = table.content(entries, laid_out)
    if emitted.extensions:
        content["extensions"] = list(emitted.extensions)
    weights_bytes = max((tensor.offset + tensor.bytes for tensor in laid_out), default=0)
    capacity = {"capacity": -(-options.context // 64) * 64}
    arena_bytes = sum(evaluate(size, capacity) for size in table.slot_bytes)
    host = host_plan(graph, options, largest) if with_host else None
    return Lowered(content, emitted, weights_bytes, arena_bytes, specs, walk.vectors, largest, host)
