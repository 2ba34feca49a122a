"""The OpenCL backend: kernels as OpenCL C, launched by the native runtime on any OpenCL device.

``kernels.cl`` holds the source and ``launches.json`` (docs/bundle.md) how it is launched; the
runtime opens the driver, builds the source for the device and runs every step there.
"""

from __future__ import annotations

from arkinfer.backends import CompileOptions, ExecutorOptions
from arkinfer.bundle import Bundle
from arkinfer.bundle_writer import BundleWriter
from arkinfer.checkpoint import Checkpoint
from arkinfer.devices import Device
from arkinfer.extras import require
from arkinfer.graph.graph import Graph


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
        """Write ``launches.json``, ``kernels.cl``, ``weights.bin`` and ``plan.cpu.json``.

        Raises:
            LoweringError: the graph holds an operator or a structure without a kernel.
            UnsupportedQuantizationError: a weight that no device layout holds.
            InvalidOptionError: the KV cache is to have a type that device kernels do not read, or
                the context needs memory that the device does not give at once.
            MissingExtraError: TVM is not installed.
        """
        require("tvm", "compiling for OpenCL")
        from arkinfer.backends._device.lowered import lower_for
        from arkinfer.tir.emit import device_target
        from arkinfer.tir.loops import Loops
        from arkinfer.tir.schedule import schedule_of

        lowered = lower_for(
            graph,
            options,
            Loops("opencl", schedule_of(device)),
            device_target("opencl"),
            device=device,
            with_host=True,
        )
        with writer.open_file("kernels.cl") as file:
            file.write(lowered.emitted.source.encode())
        lowered.write(writer, checkpoint, "launches.json")

    def executor(self, bundle: Bundle, options: ExecutorOptions) -> None:
        """None: the native runtime runs these bundles."""
        return None


BACKEND = OpenClBackend()
