"""What a device's limits allow, checked while a bundle is compiled for it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from arkinfer.errors import InvalidOptionError, LoweringError
from arkinfer.tir.emit import Kernel
from arkinfer.tir.schedule import Schedule
from arkinfer.tir.sizes import Size, evaluate

# Bytes of a place of an image: four words.
_PLACE = 16


def largest_weight(limits: Mapping[str, int], schedule: Schedule) -> int:
    """Bytes of weights that one buffer holds at most, and the image that it is read through.

    0: any number.
    """
    most = limits.get("largest_allocation", 0)
    image = limits.get("image_buffer_width", 0) * _PLACE if schedule.images else 0
    return min(most, image) if most and image else most or image


def check_memory(
    limits: Mapping[str, int], sizes: Iterable[tuple[str, Size]], context: int
) -> None:
    """That every piece of memory whose size depends on the context is one allocation.

    Args:
        limits: of the device; ``largest_allocation`` holds where there is one.
        sizes: what the memory is for, and its bytes.
        context: tokens.

    Raises:
        InvalidOptionError: one is larger.
    """
    most = limits.get("largest_allocation", 0)
    capacity = {"capacity": -(-context // 64) * 64}
    for name, size in sizes:
        needed = evaluate(size, capacity)
        if most and needed > most:
            raise InvalidOptionError(
                f"{needed} bytes for {name} at a context of {context}",
                f"at most {most} bytes in one allocation",
                "compile with a smaller --context, --chunk or --kv",
            )


def check_kernels(limits: Mapping[str, int], kernels: Mapping[str, Kernel]) -> None:
    """That groups have as many lanes and as much shared memory as the device gives them.

    Raises:
        LoweringError: one has more.
    """
    for kernel in kernels.values():
        wanted = {"work_group": kernel.lanes, "shared_memory": kernel.shared_bytes}
        for limit, count in wanted.items():
            most = limits.get(limit, count)
            if count > most:
                raise LoweringError(
                    f"{kernel.name} needs {limit} {count}", f"at most {most} on this device"
                )
