"""The OpenCL backend: kernels as OpenCL C, launched by the native runtime on any OpenCL device.

``kernels.cl`` holds the source and ``launches.json`` (docs/bundle.md) how it is launched; the
runtime opens the driver, builds the source for the device and runs every step there.
"""

from __future__ import annotations

import json
from typing import Any

from arkinfer.backends import CompileOptions, ExecutorOptions
from arkinfer.bundle import Bundle
from arkinfer.bundle_writer import BundleWriter
from arkinfer.checkpoint import Checkpoint
from arkinfer.devices import Device
from arkinfer.errors import InvalidOptionError
from arkinfer.extras import require
from arkinfer.graph.graph import Graph

# Rows of logits that one run of the head computes, when logits of many tokens are asked for.
OUTPUT_ROWS = 16
_CACHES = {None: "f16", "fp16": "f16", "fp32": "f32"}


class OpenClBackend:
    """See the module."""

    name = "opencl"
    needs: tuple[str, ...] = ("an OpenCL driver",)

    def compile(
        self,
        graph: Graph,
        checkpoint: Checkpoint,
        device: Device,
        options: CompileOptions,
        writer: BundleWriter,
    ) -> None:
        """Write ``launches.json``, ``kernels.cl`` and ``weights.bin``.

        Raises:
            LoweringError: the graph holds an operator or a structure without a kernel.
            UnsupportedQuantizationError: a weight that no device layout holds.
            InvalidOptionError: the KV cache is to have a type that device kernels do not read.
            MissingExtraError: TVM is not installed.
        """
        require("tvm", "compiling for OpenCL")
        from arkinfer.backends._device import weights
        from arkinfer.backends._device.launches import Kernels
        from arkinfer.backends._device.plan import Writer
        from arkinfer.backends.cpu.lower import lower
        from arkinfer.tir.emit import device_target, emit
        from arkinfer.tir.loops import Loops
        from arkinfer.tir.sizes import evaluate

        if options.kv not in _CACHES:
            raise InvalidOptionError(f"kv is {options.kv!r}", "fp16 or fp32 on OpenCL devices")
        plan, walk = lower(graph, fused=False)
        specs = list((walk.weights | graph.weights).values())
        tensors = [tensor for spec in specs for tensor in weights.tensors_of(spec)]
        tensors += [weights.DeviceTensor(n, v.size * 4) for n, v in walk.vectors.items()]
        laid_out = weights.lay_out(tensors)
        by_codes = {weights.codes_name(spec): spec for spec in specs}
        dtype: Any = _CACHES[options.kv]
        kernels = Kernels(Loops("opencl"), dtype, options.chunk, by_codes)
        table = Writer(plan, kernels, options.chunk, min(OUTPUT_ROWS, options.chunk))
        emitted = emit(kernels.functions, device_target("opencl"))
        content = table.content(emitted.kernels, laid_out)
        capacity = {"capacity": -(-options.context // 64) * 64}
        writer.arena_bytes = sum(evaluate(size, capacity) for size in table.slot_bytes)
        with writer.open_file("launches.json") as file:
            file.write(json.dumps(content, indent=1).encode())
        with writer.open_file("kernels.cl") as file:
            file.write(emitted.source.encode())
        with writer.open_file("weights.bin") as file:
            for spec in specs:
                weights.write_weight(file, spec, checkpoint)
            for values in walk.vectors.values():
                weights.write_vector(file, values)
            writer.weights_bytes = file.align(1)

    def executor(self, bundle: Bundle, options: ExecutorOptions) -> None:
        """None: the native runtime runs these bundles."""
        return None


BACKEND = OpenClBackend()
