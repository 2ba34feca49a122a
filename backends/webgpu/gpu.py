"""A WebGPU device through wgpu, which runs on Vulkan, Metal and DX12; its errors by name."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from typing import Any

import wgpu
from wgpu.backends.wgpu_native import extras

from arkinfer.backends.webgpu.limits import Limits
from arkinfer.backends.webgpu.shaders import Shader
from arkinfer.errors import DeviceError

# Part of the name of the device to use, where there are several.
ENVIRONMENT = "ARK_WEBGPU_DEVICE"
_PREFERENCE = ("DiscreteGPU", "IntegratedGPU")
_LONGEST = 1500  # of a driver's message, such as a compiler's log
_REMEDY = "try again, choose another device with ARK_WEBGPU_DEVICE, or compile with --target cpu"


class Gpu:
    """An opened device.

    Attributes:
        name: of the device, for messages.
        limits: what it lets a kernel have.
        failed: whether it has given an error.
        device: wgpu's own object.
    """

    def __init__(self, adapter: Any) -> None:
        self.failed = False
        self.name = str(adapter.info.device)
        given = adapter.limits
        self.limits = Limits(
            binding_bytes=given["max-storage-buffer-binding-size"],
            buffer_bytes=given["max-buffer-size"],
            storage_buffers=given["max-storage-buffers-per-shader-stage"],
            shared_bytes=given["max-compute-workgroup-storage-size"],
            lanes=given["max-compute-invocations-per-workgroup"],
            groups=given["max-compute-workgroups-per-dimension"],
        )
        names = (
            "max-storage-buffer-binding-size",
            "max-buffer-size",
            "max-storage-buffers-per-shader-stage",
            "max-compute-workgroup-storage-size",
            "max-compute-invocations-per-workgroup",
        )
        with self.during("opening the device"):
            self.device = adapter.request_device_sync(
                required_limits={name: given[name] for name in names}
            )

    @contextlib.contextmanager
    def during(self, what: str) -> Iterator[None]:
        """Give what wgpu raises inside a name, and say what was being done.

        Raises:
            DeviceError: in place of wgpu's errors.
        """
        try:
            yield
        except wgpu.GPUOutOfMemoryError:
            self.failed = True
            raise DeviceError(
                f"{self.name} has no memory left ({what})",
                "",
                "load with a smaller context, or close what else uses the device",
            ) from None
        except (wgpu.GPUError, RuntimeError) as error:
            self.failed = True
            # wgpu tells that a device is lost, as after a driver's reset, by an error like others.
            raise DeviceError(f"{self.name}, {what}: {error}"[:_LONGEST], "", _REMEDY) from None

    def buffer(self, size: int, usage: int, what: str) -> Any:
        """A buffer of zeros; ``usage`` holds flags of ``wgpu.BufferUsage``."""
        with self.during(f"{size} bytes for {what}"):
            return self.device.create_buffer(size=size, usage=usage)

    def pipeline(self, shader: Shader) -> Any:
        """A compiled kernel.

        Raises:
            DeviceError: it does not compile; carries the compiler's log.
        """
        with self.during(f"compiling {shader.name} of kernels.wgsl"):
            module = self.device.create_shader_module(code=shader.source)
            compute = {"module": module, "entry_point": shader.name}
            return self.device.create_compute_pipeline(layout="auto", compute=compute)


def open_gpu() -> Gpu:
    """Open the device that ``ARK_WEBGPU_DEVICE`` holds a part of the name of, else a GPU, else any.

    Raises:
        DeviceError: there is none.
    """
    # Its errors are raised, and would be told twice.
    logging.getLogger("wgpu").setLevel(logging.CRITICAL + 1)
    with contextlib.suppress(RuntimeError):  # where other code has made wgpu's instance before
        # OpenGL, which it would look for too, lacks what the kernels need.
        extras.set_instance_extras(backends=["Primary"])
    adapters = wgpu.gpu.enumerate_adapters_sync()
    if not adapters:
        raise DeviceError(
            "no WebGPU device",
            "a GPU with a Vulkan, Metal or DX12 driver",
            "install the driver (Mesa's lavapipe runs on any CPU), or compile with --target cpu",
        )
    wanted = os.environ.get(ENVIRONMENT, "")
    named = [adapter for adapter in adapters if wanted.lower() in adapter.info.device.lower()]
    if not named:
        raise DeviceError(
            f"no WebGPU device like {wanted[:60]!r}",
            f"{ENVIRONMENT} to be part of {', '.join(a.info.device for a in adapters)}",
        )
    by_kind = {adapter.info["adapter_type"]: adapter for adapter in reversed(named)}
    kind = next((kind for kind in _PREFERENCE if kind in by_kind), None)
    return Gpu(by_kind[kind] if kind else named[0])
