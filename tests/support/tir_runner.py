"""Runs kernels described in TIR: compiled for this CPU, or from source by its launch table."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from arkinfer import devices
from arkinfer.tir.emit import device_target, emit
from arkinfer.tir.loops import Loops
from arkinfer.tir.schedule import Schedule, schedule_of
from arkinfer.tir.sizes import evaluate

Array = NDArray[Any]
Arguments = Mapping[str, Any]

# What an OpenCL platform calls itself, by the name that tests use.
PLATFORMS = {"PoCL": "Portable Computing Language", "Intel": "Intel(R) OpenCL"}
# The target whose schedules each runs whole.
TARGETS = {"PoCL": "opencl", "Intel": "intel"}
# The one that OpenCL tests run on; test_intel.py runs them again on the other.
PLATFORM = os.environ.get("ARK_TEST_OPENCL", "PoCL")


class Runner(Protocol):
    """Runs one kernel."""

    loops: Loops

    def run(self, function: Any, arguments: Arguments) -> dict[str, Array]:
        """Call with arrays and scalars by name; gives the arrays back as they then are."""
        ...


def opencl_platforms() -> list[str]:
    """The platforms of :data:`PLATFORMS` that pyopencl finds."""
    if importlib.util.find_spec("pyopencl") is None:
        return []
    import pyopencl

    try:
        found = [platform.name for platform in pyopencl.get_platforms()]
    except pyopencl.LogicError:  # the loader is there, but no driver
        return []
    return [name for name, full in PLATFORMS.items() if any(full in one for one in found)]


class HostRunner:
    """Compiles for this machine's CPU."""

    loops = Loops("llvm")

    def run(self, function: Any, arguments: Arguments) -> dict[str, Array]:
        """See :class:`Runner`."""
        import tvm

        target = tvm.target.Target({"kind": "llvm"})
        built = tvm.compile(function.with_attr("global_symbol", "kernel"), target=target)
        tensors: dict[str, Any] = {}
        given: list[Any] = []
        for param in function.params:
            name = str(param.name)
            if isinstance(arguments[name], int):
                given.append(arguments[name])
            else:
                tensors[name] = tvm.runtime.tensor(arguments[name].ravel())
                given.append(tensors[name])
        built["kernel"](*given)
        return {name: t.numpy().reshape(arguments[name].shape) for name, t in tensors.items()}


class OpenClRunner:
    """Compiles OpenCL C for a platform, and launches it with what ``emit`` recorded."""

    def __init__(self, platform: str, schedule: Schedule | None = None) -> None:
        import pyopencl as cl

        schedule = schedule or schedule_of(devices.get(TARGETS[platform]))
        self.loops = Loops("opencl", schedule)
        found = [p for p in cl.get_platforms() if PLATFORMS[platform] in p.name]
        self._cl = cl
        self._context = cl.Context(found[0].get_devices())
        self._queue = cl.CommandQueue(self._context)
        self._target = device_target("opencl")

    def run(self, function: Any, arguments: Arguments) -> dict[str, Array]:
        """See :class:`Runner`."""
        cl = self._cl
        emitted = emit({"kernel": function}, self._target, self.loops.schedule)
        kernel = emitted.kernels["kernel"]
        program = cl.Program(self._context, emitted.source).build()
        flags = cl.mem_flags.READ_WRITE | cl.mem_flags.COPY_HOST_PTR
        scalars = {name: v for name, v in arguments.items() if isinstance(v, int)}
        buffers: dict[str, Any] = {}
        given: list[Any] = []
        for name in kernel.arguments:
            if name in kernel.scalars:
                given.append(np.int32(scalars[name]))
            else:
                buffers[name] = cl.Buffer(self._context, flags, hostbuf=arguments[name])
                given.append(self._image(buffers[name]) if name in kernel.images else buffers[name])
        lanes = [kernel.lanes, 1, 1]
        groups = [evaluate(size, scalars) for size in kernel.groups]
        sizes = [count * n for count, n in zip(groups, lanes, strict=True)]
        cl.Kernel(program, kernel.name)(self._queue, sizes, lanes, *given)
        results = {}
        for name, buffer in buffers.items():
            results[name] = np.empty_like(arguments[name])
            cl.enqueue_copy(self._queue, results[name], buffer)
        return results

    def _image(self, buffer: Any) -> Any:
        """The same memory as places of four words."""
        cl = self._cl
        places = cl.ImageFormat(cl.channel_order.RGBA, cl.channel_type.UNSIGNED_INT32)
        return cl.create_image(
            self._context, cl.mem_flags.READ_ONLY, places, (buffer.size // 16,), buffer=buffer
        )


class CudaRunner:
    """Compiles for the first CUDA device, and launches it with what ``emit`` recorded."""

    loops = Loops("cuda")

    def run(self, function: Any, arguments: Arguments) -> dict[str, Array]:
        """See :class:`Runner`."""
        from arkinfer.backends.cuda import modules
        from tests.support.cuda_program import DeviceCode

        emitted = emit({"kernel": function}, device_target("cuda"))
        kernel = emitted.kernels["kernel"]
        scalars = {name: v for name, v in arguments.items() if isinstance(v, int)}
        groups = [evaluate(size, scalars) for size in kernel.groups]
        given = [arguments[name] for name in kernel.arguments]
        code = DeviceCode(modules.portable(emitted.source))
        found = code.run(kernel.name, given, groups, kernel.lanes)
        names = [name for name in kernel.arguments if name not in kernel.scalars]
        return dict(zip(names, found, strict=True))


class WebGpuRunner:
    """Compiles WGSL for the first WebGPU device, and launches it as the webgpu backend does."""

    loops = Loops("webgpu")

    def __init__(self) -> None:
        from arkinfer.backends.webgpu.gpu import open_gpu

        self._gpu = open_gpu()
        self._target = device_target("webgpu")

    def run(self, function: Any, arguments: Arguments) -> dict[str, Array]:
        """See :class:`Runner`."""
        import wgpu

        from arkinfer.backends.webgpu import shaders

        device, kinds = self._gpu.device, wgpu.BufferUsage
        emitted = emit({"kernel": function}, self._target)
        kernel = emitted.kernels["kernel"]
        shader = shaders.from_tvm(emitted.source)[kernel.name]
        assert (*shader.buffers, *shader.scalars) == kernel.arguments
        scalars = {name: v for name, v in arguments.items() if isinstance(v, int)}
        x, y, z = (evaluate(size, scalars) for size in kernel.groups)
        assert z == 1
        across = min(x, self._gpu.limits.groups)
        uniforms = np.array([*(scalars[name] for name in shader.scalars), x - 1], np.int32)
        usage = kinds.STORAGE | kinds.COPY_SRC
        held = [
            device.create_buffer_with_data(data=arguments[name].ravel(), usage=usage)
            for name in shader.buffers
        ]
        held.append(device.create_buffer_with_data(data=uniforms, usage=kinds.UNIFORM))
        pipeline = self._gpu.pipeline(shader)
        entries = [{"binding": i, "resource": {"buffer": b}} for i, b in enumerate(held)]
        layout = pipeline.get_bind_group_layout(0)
        encoder = device.create_command_encoder()
        compute = encoder.begin_compute_pass()
        compute.set_pipeline(pipeline)
        compute.set_bind_group(0, device.create_bind_group(layout=layout, entries=entries))
        compute.dispatch_workgroups(across, y, -(-x // across))
        compute.end()
        device.queue.submit([encoder.finish()])
        results = {}
        for name, buffer in zip(shader.buffers, held[:-1], strict=True):
            given = arguments[name]
            read = np.frombuffer(device.queue.read_buffer(buffer), given.dtype)
            results[name] = read.reshape(given.shape)
        return results
