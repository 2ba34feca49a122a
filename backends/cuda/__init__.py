"""The CUDA backend: kernels as machine code of one GPU, launched by the native runtime.

nvcc compiles at compile time what TVM emits, and hand-written kernels where there are some; the
device needs only NVIDIA's driver. ``modules.bin`` holds the code and ``launches.json``
(docs/bundle.md) how it is launched.
"""

from __future__ import annotations

import concurrent.futures
import os

from arkinfer.backends import CompileOptions, ExecutorOptions
from arkinfer.bundle import Bundle
from arkinfer.bundle_writer import BundleWriter
from arkinfer.checkpoint import Checkpoint
from arkinfer.devices import Device
from arkinfer.extras import require
from arkinfer.graph.graph import Graph


class CudaBackend:
    """See the module."""

    name = "cuda"
    needs: tuple[str, ...] = ("an NVIDIA GPU and its driver",)

    def compile(
        self,
        graph: Graph,
        checkpoint: Checkpoint,
        device: Device,
        options: CompileOptions,
        writer: BundleWriter,
    ) -> None:
        """Write ``launches.json``, ``modules.bin`` and ``weights.bin``.

        Raises:
            LoweringError: the graph holds an operator or a structure without a kernel, or the
                device's ``arch`` is none of CUDA's.
            UnsupportedQuantizationError: a weight that no device layout holds.
            InvalidOptionError: the KV cache is to have a type that device kernels do not read.
            MissingExtraError: TVM or nvcc is not installed.
            KernelBuildError: nvcc refuses a kernel; with its log.
        """
        require("tvm", "compiling for CUDA")
        import tvm

        from arkinfer.backends._device.lowered import lower_for
        from arkinfer.backends.cuda import modules, nvcc
        from arkinfer.backends.cuda.kernels import CudaKernels
        from arkinfer.tir.loops import Loops

        compiler = nvcc.find()
        architecture = nvcc.Architecture.of(device.arch)
        target = tvm.target.Target(
            {"kind": "cuda", "arch": f"sm_{architecture.capability}"}, host={"kind": "llvm"}
        )
        kernels: list[CudaKernels] = []

        def make(*arguments: object) -> CudaKernels:
            kernels.append(CudaKernels(*arguments))  # type: ignore[arg-type]
            kernels[0].architecture = architecture
            return kernels[0]

        lowered = lower_for(
            graph,
            options,
            Loops("cuda"),
            target,
            device=device,
            make=make,
            keep_blocks=True,
        )
        units = [modules.portable(lowered.emitted.source), *kernels[0].units()]
        with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
            built = list(pool.map(lambda unit: unit.build(compiler, architecture), units))
        lowered.content["code"] = modules.table(built, compiler, architecture)
        with writer.open_file("modules.bin") as file:
            for module in built:
                file.align(modules.ALIGNMENT)
                file.write(module.code)
        lowered.write(writer, checkpoint, "launches.json")

    def executor(self, bundle: Bundle, options: ExecutorOptions) -> None:
        """None: the native runtime runs these bundles."""
        return None


BACKEND = CudaBackend()
