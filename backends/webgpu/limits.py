"""What a WebGPU device lets a kernel have, and whether a table of launches keeps to it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from arkinfer.backends._device.table import SCALARS, Table, TableLaunch, TableStep, bytes_of
from arkinfer.backends.webgpu.shaders import Shader
from arkinfer.devices import Device
from arkinfer.errors import DeviceError, InvalidBundleError
from arkinfer.kv_types import BLOCK
from arkinfer.tir.sizes import evaluate

# More tokens than any context; sizes of launches that grow with it are checked at this.
_FAR = 1 << 20


@dataclass(frozen=True)
class Limits:
    """Limits of WebGPU; the defaults are what every implementation offers.

    Attributes:
        binding_bytes: of a storage buffer that is bound (maxStorageBufferBindingSize).
        buffer_bytes: of a buffer (maxBufferSize).
        storage_buffers: that a kernel binds (maxStorageBuffersPerShaderStage).
        shared_bytes: of workgroup memory (maxComputeWorkgroupStorageSize).
        lanes: of a group (maxComputeInvocationsPerWorkgroup).
        groups: of a dispatch on one axis (maxComputeWorkgroupsPerDimension).

    Source: W3C, WebGPU, "Limits", table of defaults.
    """

    binding_bytes: int = 128 << 20
    buffer_bytes: int = 256 << 20
    storage_buffers: int = 8
    shared_bytes: int = 16384
    lanes: int = 256
    groups: int = 65535

    @property
    def piece_bytes(self) -> int:
        """The most that a weight, a cache or a slot may have."""
        return min(self.binding_bytes, self.buffer_bytes)

    @property
    def as_profile(self) -> dict[str, int]:
        """In the terms of device profiles."""
        return {
            "largest_allocation": self.piece_bytes,
            "shared_memory": self.shared_bytes,
            "work_group": self.lanes,
        }

    @staticmethod
    def of(device: Device) -> Limits:
        """The defaults, with what a device profile says of the device in their place."""
        base, given = Limits(), device.limits
        allocation = given.get("largest_allocation")
        return Limits(
            binding_bytes=allocation or base.binding_bytes,
            buffer_bytes=allocation or base.buffer_bytes,
            shared_bytes=given.get("shared_memory", base.shared_bytes),
            lanes=given.get("work_group", base.lanes),
        )


@dataclass(frozen=True)
class Excess:
    """One thing that is beyond a limit: what was found, and what is allowed."""

    found: str
    allowed: str


def check_arguments(table: Table, shaders: Mapping[str, Shader]) -> None:
    """Refuse a table whose launches do not fit the shaders' declarations.

    Raises:
        InvalidBundleError: a kernel that is not there, other arguments than it declares, other
            lanes, or memory that a launch writes bound to it twice, which WebGPU forbids.
    """
    for step in (*table.body, *table.head):
        for launch in step.launches:
            shader = shaders.get(launch.kernel)
            if shader is None:
                raise _misfit(step, f"the kernel {launch.kernel[:60]!r}", "one of kernels.wgsl")
            buffers = [a for a in launch.arguments if a.holder != "scalar"]
            scalars = tuple(a.scalar for a in launch.arguments if a.holder == "scalar")
            if len(buffers) != len(shader.buffers) or scalars != shader.scalars:
                raise _misfit(
                    step,
                    f"{len(buffers)} buffers and the scalars {', '.join(scalars) or 'none'}",
                    f"{len(shader.buffers)} and {', '.join(shader.scalars)} for {shader.name}",
                )
            if launch.lanes != shader.lanes:
                raise _misfit(step, f"{launch.lanes} lanes", f"{shader.lanes} for {shader.name}")
            for name, buffer in zip(shader.buffers, buffers, strict=True):
                if name in shader.written and buffers.count(buffer) > 1:
                    raise _misfit(
                        step,
                        f"{shader.name} has another buffer where it writes {name}",
                        "memory of its own",
                    )


def excesses(
    table: Table, shaders: Mapping[str, Shader], limits: Limits, capacity: int
) -> Iterator[Excess]:
    """What of a checked table is beyond the limits, with caches for ``capacity`` tokens."""
    pieces = [(weight.name, weight.size) for weight in table.weights]
    pieces += [(f"the cache {cache.name}", cache.size) for cache in table.caches]
    pieces += [(f"activations (slot {i})", size) for i, size in enumerate(table.slots)]
    for what, size in pieces:
        needed = bytes_of(size, capacity, what)
        if needed > limits.piece_bytes:
            yield Excess(
                f"{needed} bytes for {what}",
                f"at most {limits.piece_bytes} in a storage buffer (maxStorageBufferBindingSize)",
            )
    for step in (*table.body, *table.head):
        for launch in step.launches:
            yield from _of_launch(step, launch, shaders[launch.kernel], limits, table.chunk)


def _of_launch(
    step: TableStep, launch: TableLaunch, shader: Shader, limits: Limits, chunk: int
) -> Iterator[Excess]:
    where = f"{step.place}, {launch.kernel}"
    for found, allowed, what, name in (
        (len(shader.buffers), limits.storage_buffers, "buffers", "maxStorageBuffersPerShaderStage"),
        (shader.shared_bytes, limits.shared_bytes, "bytes", "maxComputeWorkgroupStorageSize"),
        (shader.lanes, limits.lanes, "lanes", "maxComputeInvocationsPerWorkgroup"),
    ):
        if found > allowed:
            yield Excess(f"{where}: {found} {what}", f"at most {allowed} ({name})")
    tokens = min(launch.most, chunk)
    if tokens < launch.least:
        return
    x, y, z = groups_of(launch, dict.fromkeys(SCALARS, _FAR) | {"tokens": tokens}, where)
    if max(y, -(-x // limits.groups)) > limits.groups or z != 1:
        yield Excess(
            f"{where}: {x} x {y} x {z} groups",
            f"at most {limits.groups} on an axis (maxComputeWorkgroupsPerDimension), and 1 on z",
        )


def groups_of(launch: TableLaunch, scalars: Mapping[str, int], where: str) -> tuple[int, int, int]:
    """Groups of a launch on three axes.

    Raises:
        InvalidBundleError: a size that is none.
    """
    try:
        x, y, z = (evaluate(size, scalars) for size in launch.groups)
    except ZeroDivisionError:
        x = y = z = -1
    if min(x, y, z) < 0:
        raise InvalidBundleError(
            f"{where}: {x} x {y} x {z} groups", "none below 0", "compile the bundle again"
        )
    return x, y, z


def _misfit(step: TableStep, found: str, expected: str) -> InvalidBundleError:
    return InvalidBundleError(
        f"dispatches.json: {step.place}: {found}", expected, "compile the bundle again"
    )


def check_fits(
    table: Table, shaders: Mapping[str, Shader], limits: Limits, context: int, device: str
) -> None:
    """Refuse a table that a device cannot run with so many tokens.

    Raises:
        DeviceError: the first thing that is beyond a limit.
    """
    excess = next(excesses(table, shaders, limits, capacity_of(context)), None)
    if excess is not None:
        raise DeviceError(
            f"{device} cannot run this bundle: {excess.found}",
            excess.allowed,
            "load with a smaller context, choose another device with ARK_WEBGPU_DEVICE, or "
            "compile with --target cpu",
        )


def capacity_of(context: int) -> int:
    """Tokens that caches hold for a context: whole blocks."""
    return -(-context // BLOCK) * BLOCK
