"""The Metal backend: kernels as Metal source, launched by the native runtime on Apple systems.

``kernels.metal`` holds the source and ``launches.json`` (docs/bundle.md) how it is launched.
Nothing of it was ever compiled or run by Apple's tools: docs/targets.md says what was checked.
"""

from __future__ import annotations

from arkinfer.backends import CompileOptions, ExecutorOptions
from arkinfer.bundle import Bundle
from arkinfer.bundle_writer import BundleWriter
from arkinfer.checkpoint import Checkpoint
from arkinfer.devices import Device
from arkinfer.extras import require
from arkinfer.graph.graph import Graph


class MetalBackend:
    """See the module."""

    name = "metal"
    needs: tuple[str, ...] = ("macOS or iOS, with a GPU that runs Metal",)

    def compile(
        self,
        graph: Graph,
        checkpoint: Checkpoint,
        device: Device,
        options: CompileOptions,
        writer: BundleWriter,
    ) -> None:
        """Write ``launches.json``, ``kernels.metal`` and ``weights.bin``.

        Raises:
            LoweringError: the graph holds an operator or a structure without a kernel, or a kernel
                has more lanes or threadgroup memory than the device.
            UnsupportedQuantizationError: a weight that no device layout holds.
            InvalidOptionError: the KV cache is to have a type that device kernels do not read.
            MissingExtraError: TVM is not installed.
        """
        require("tvm", "compiling for Metal")
        from arkinfer.backends._device.lowered import lower_for
        from arkinfer.backends.metal import source
        from arkinfer.tir.emit import device_target
        from arkinfer.tir.loops import Loops

        lowered = lower_for(graph, options, Loops("metal"), device_target("metal"), device=device)
        text = source.join(lowered.emitted.source)
        source.check(text, lowered.emitted.kernels)
        with writer.open_file("kernels.metal") as file:
            file.write(text.encode())
        lowered.write(writer, checkpoint, "launches.json")

    def executor(self, bundle: Bundle, options: ExecutorOptions) -> None:
        """None: the native runtime runs these bundles."""
        return None


BACKEND = MetalBackend()
