"""The WebGPU backend: kernels as WGSL, run from Python by wgpu on Vulkan, Metal or DX12.

``kernels.wgsl`` holds the source and ``dispatches.json`` (as ``launches.json`` in docs/bundle.md)
how it is launched. One command encoder holds all of a step; what it binds is bound once.
"""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING

from arkinfer import kv_types
from arkinfer.backends import CompileOptions, ExecutorOptions
from arkinfer.bundle import Bundle
from arkinfer.bundle_writer import BundleWriter
from arkinfer.checkpoint import Checkpoint
from arkinfer.devices import Device
from arkinfer.errors import InvalidOptionError, LoweringError
from arkinfer.extras import require
from arkinfer.graph.graph import Graph

if TYPE_CHECKING:
    from arkinfer.backends.webgpu.executor import WebGpuExecutor


TABLE, SHADERS = "dispatches.json", "kernels.wgsl"


class WebGpuBackend:
    """See the module."""

    name = "webgpu"
    needs: tuple[str, ...] = ("a GPU with a Vulkan, Metal or DX12 driver",)

    def compile(
        self,
        graph: Graph,
        checkpoint: Checkpoint,
        device: Device,
        options: CompileOptions,
        writer: BundleWriter,
    ) -> None:
        """Write ``dispatches.json``, ``kernels.wgsl`` and ``weights.bin``.

        Raises:
            LoweringError: the graph holds an operator or a structure without a kernel, or more
                than the limits of the device, or of WebGPU where it says none.
            UnsupportedQuantizationError: a weight that no device layout holds.
            InvalidOptionError: the KV cache is to have a type that device kernels do not read, or
                the context needs memory that is no buffer's.
            MissingExtraError: TVM is not installed.
        """
        require("tvm", "compiling for WebGPU")
        from arkinfer.backends._device.lowered import lower_for
        from arkinfer.backends._device.table import Facts
        from arkinfer.backends._device.table_reader import read
        from arkinfer.backends.webgpu import shaders
        from arkinfer.backends.webgpu.limits import Limits, capacity_of, check_arguments, excesses
        from arkinfer.tir.emit import device_target
        from arkinfer.tir.loops import Loops

        limits = Limits.of(device)
        bounded = dataclasses.replace(device, limits=limits.as_profile)
        target = device_target("webgpu")
        lowered = lower_for(graph, options, Loops("webgpu"), target, device=bounded)
        kernels = shaders.from_tvm(lowered.emitted.source)
        # Read back as the runtime will, so that whatever it would refuse is refused here.
        model, size = graph.config, lowered.weights_bytes
        facts = Facts(options.chunk, model.vocab_size, model.num_layers, model.num_kv_heads, size)
        table = read(json.dumps(lowered.content), TABLE, facts)
        check_arguments(table, kernels)
        for excess in excesses(table, kernels, limits, capacity_of(options.context)):
            raise LoweringError(
                f"{device.name}: {excess.found}",
                excess.allowed,
                "compile with a smaller --context or --chunk, or for a device profile that states "
                "larger limits",
            )
        with writer.open_file(SHADERS) as file:
            file.write(shaders.join(kernels).encode())
        lowered.write(writer, checkpoint, TABLE)

    def executor(self, bundle: Bundle, options: ExecutorOptions) -> WebGpuExecutor | None:
        """An executor for a bundle of this backend.

        Raises:
            MissingExtraError: wgpu is not installed.
            InvalidOptionError: the cache is to have another type than the bundle was compiled for.
            InvalidBundleError, DamagedBundleError: it is not what was compiled.
            DeviceError: there is no device, or it cannot hold or compile the bundle.
        """
        if TABLE not in bundle.manifest.files:
            return None
        require("webgpu", "running a bundle on WebGPU")
        from arkinfer.backends.webgpu.executor import WebGpuExecutor
        from arkinfer.backends.webgpu.loaded import load

        compiled = bundle.manifest.kv or kv_types.DEFAULT
        if options.kv not in (None, compiled):
            raise InvalidOptionError(
                f"KV cache type {options.kv}",
                f"{compiled}, which the bundle was compiled for",
                "compile it again with another --kv",
            )
        loaded = load(bundle.path, bundle.digest, options.context)
        return WebGpuExecutor(loaded, bundle.manifest, options.context)


BACKEND = WebGpuBackend()
