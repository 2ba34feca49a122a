"""The CUDA driver from Python, as far as measuring needs it: memory, modules, launches, events."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
_CAPABILITY_MAJOR, _CAPABILITY_MINOR = 75, 76
_MAX_DYNAMIC_SHARED = 8
_PLAIN_SHARED = 48 << 10


class CudaError(Exception):
    """No device, or a call that failed; names the call and the code."""


@dataclass(frozen=True)
class Memory:
    """Bytes on the device, freed by :meth:`Driver.close`."""

    address: int
    bytes: int


class Driver:
    """The first device.

    Raises:
        CudaError: there is no driver or no device.
    """

    def __init__(self) -> None:
        try:
            self._cuda = ctypes.CDLL(os.environ.get("ARK_CUDA_LIBRARY") or "libcuda.so.1")
        except OSError as error:
            raise CudaError(f"no CUDA device: no driver can be opened ({error})") from None
        count = ctypes.c_int()
        try:
            self.call("cuInit", 0)
            self.call("cuDeviceGetCount", ctypes.byref(count))
        except CudaError as error:
            raise CudaError(f"no CUDA device: {error}") from None
        if count.value == 0:
            raise CudaError("no CUDA device: the driver shows none")
        device, context, name = ctypes.c_int(), ctypes.c_void_p(), ctypes.create_string_buffer(256)
        self.call("cuDeviceGet", ctypes.byref(device), 0)
        self.call("cuDeviceGetName", name, 255, device)
        self.call("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
        self.call("cuCtxSetCurrent", context)
        self.name = name.value.decode()
        major, minor = (
            self._attribute(device, what) for what in (_CAPABILITY_MAJOR, _CAPABILITY_MINOR)
        )
        self.capability = 10 * major + minor
        self._device = device
        self._memory: list[Memory] = []
        self._modules: list[ctypes.c_void_p] = []

    def call(self, name: str, *arguments: Any) -> None:
        """Call a function of the driver.

        Raises:
            CudaError: it gives a code.
        """
        code = self._cuda[name](*arguments)
        if code == 0:
            return
        text = ctypes.c_char_p()
        self._cuda.cuGetErrorName(code, ctypes.byref(text))
        raise CudaError(f"{name}: {text.value.decode() if text.value else code}")

    def allocate(self, bytes: int) -> Memory:
        """Device memory, cleared."""
        address = ctypes.c_ulonglong()
        self.call("cuMemAlloc_v2", ctypes.byref(address), ctypes.c_size_t(max(bytes, 4)))
        memory = Memory(address.value, max(bytes, 4))
        self._memory.append(memory)
        size = ctypes.c_size_t(memory.bytes)
        self.call("cuMemsetD8Async", ctypes.c_ulonglong(memory.address), 0, size, None)
        return memory

    def upload(self, memory: Memory, values: Array) -> None:
        """Copy to the device."""
        data = np.ascontiguousarray(values)
        assert data.nbytes <= memory.bytes
        size = ctypes.c_size_t(data.nbytes)
        target = ctypes.c_ulonglong(memory.address)
        self.call("cuMemcpyHtoD_v2", target, ctypes.c_void_p(data.ctypes.data), size)
        self.call("cuStreamSynchronize", None)

    def download(self, memory: Memory, like: Array) -> Array:
        """What the device has, as an array like another."""
        data = np.empty_like(like)
        size, source = ctypes.c_size_t(data.nbytes), ctypes.c_ulonglong(memory.address)
        self.call("cuMemcpyDtoHAsync_v2", ctypes.c_void_p(data.ctypes.data), source, size, None)
        self.call("cuStreamSynchronize", None)
        return data

    def load(self, image: bytes) -> ctypes.c_void_p:
        """A module from machine code or PTX."""
        module = ctypes.c_void_p()
        self.call("cuModuleLoadData", ctypes.byref(module), ctypes.c_char_p(image))
        self._modules.append(module)
        return module

    def function(self, module: ctypes.c_void_p, name: str, dynamic_bytes: int = 0) -> Any:
        """A kernel of a module, which may use so much dynamic shared memory."""
        function = ctypes.c_void_p()
        self.call("cuModuleGetFunction", ctypes.byref(function), module, name.encode())
        if dynamic_bytes > _PLAIN_SHARED:
            self.call("cuFuncSetAttribute", function, _MAX_DYNAMIC_SHARED, dynamic_bytes)
        return function

    def launch(
        self,
        function: Any,
        groups: Sequence[int],
        lanes: int,
        arguments: Sequence[Memory | int],
        dynamic_bytes: int = 0,
    ) -> None:
        """Start a kernel; whole numbers are int32."""
        values = [
            ctypes.c_ulonglong(one.address) if isinstance(one, Memory) else ctypes.c_int32(one)
            for one in arguments
        ]
        addresses = [ctypes.cast(ctypes.byref(value), ctypes.c_void_p) for value in values]
        parameters = (ctypes.c_void_p * len(addresses))(*addresses)
        self.call(
            "cuLaunchKernel", function, *groups, lanes, 1, 1, dynamic_bytes, None, parameters, None
        )

    def seconds(self, run: Callable[[], None], repeats: int = 20) -> float:
        """What one of many runs takes on the device, the median of five rounds."""
        events = [ctypes.c_void_p(), ctypes.c_void_p()]
        for event in events:
            self.call("cuEventCreate", ctypes.byref(event), 0)
        rounds = []
        for _ in range(6):
            self.call("cuEventRecord", events[0], None)
            for _ in range(repeats):
                run()
            self.call("cuEventRecord", events[1], None)
            self.call("cuEventSynchronize", events[1])
            milliseconds = ctypes.c_float()
            self.call("cuEventElapsedTime", ctypes.byref(milliseconds), *events)
            rounds.append(milliseconds.value / 1000 / repeats)
        for event in events:
            self.call("cuEventDestroy_v2", event)
        return float(np.median(rounds[1:]))  # the first one warms

    def bandwidth(self, bytes: int = 1 << 30) -> float:
        """Bytes per second that a copy within the device's memory reads and writes."""
        source, target = self.allocate(bytes), self.allocate(bytes)
        first, second = (ctypes.c_ulonglong(one.address) for one in (target, source))
        size = ctypes.c_size_t(bytes)
        return (
            2
            * bytes
            / self.seconds(lambda: self.call("cuMemcpyDtoDAsync_v2", first, second, size, None), 5)
        )

    def free(self) -> None:
        """Give back all memory and modules."""
        self.call("cuStreamSynchronize", None)
        for memory in self._memory:
            self.call("cuMemFree_v2", ctypes.c_ulonglong(memory.address))
        for module in self._modules:
            self.call("cuModuleUnload", module)
        self._memory.clear()
        self._modules.clear()

    def close(self) -> None:
        """Give back everything."""
        self.free()
        self.call("cuDevicePrimaryCtxRelease_v2", self._device)

    def _attribute(self, device: ctypes.c_int, what: int) -> int:
        value = ctypes.c_int()
        self.call("cuDeviceGetAttribute", ctypes.byref(value), what, device)
        return value.value
