"""What a device's profile says, as choices that schedules of kernels follow.

Kernels never ask which device it is: they ask the :class:`Schedule`, and this file alone reads
profiles (docs/devices.md explains features and traits).
"""

from __future__ import annotations

from dataclasses import dataclass

from arkinfer.devices import Device

# Extensions with which the size of a sub-group can be asked for, and how.
_SIZED = {
    "cl_intel_required_subgroup_size": "intel_reqd_sub_group_size({lanes})",
    "cl_qcom_reqd_sub_group_size": 'qcom_reqd_sub_group_size("half")',
}
_FAMILIES = ("cl_intel_subgroups", "cl_khr_subgroups")
_WORD = 4  # bytes


@dataclass(frozen=True)
class Schedule:
    """How kernels are shaped for a device; the default suits any.

    Attributes:
        subgroup: lanes that add up numbers without shared memory; 0: none do.
        vector: words that a lane reads at once.
        half: whether products are computed in fp16, their sums over groups in float32.
        images: whether weights are read through images, which buffers are seen as.
        staged: whether tiles of products go through shared memory.
        extensions: of OpenCL that kernels need which use all of this.
        attribute: of kernels that use sub-groups, so that they have this size.
    """

    subgroup: int = 0
    vector: int = 1
    half: bool = False
    images: bool = False
    staged: bool = True
    extensions: tuple[str, ...] = ()
    attribute: str = ""


GENERIC = Schedule()


def schedule_of(device: Device) -> Schedule:
    """What a profile's features and traits make of kernels.

    Sub-groups are used where there is a way to ask for their size: kernels count on it. fp16
    arithmetic is taken to be fast where it is there at all: GPUs of phones do twice as much of it.
    """
    features = set(device.features)
    families = [name for name in _FAMILIES if name in features]
    sized = [name for name in _SIZED if name in features]
    lanes = device.traits.get("subgroup", 0) if families and sized else 0
    half = "cl_khr_fp16" in features
    extensions = (["cl_khr_fp16"] if half else []) + (families[:1] + sized[:1] if lanes else [])
    return Schedule(
        subgroup=lanes,
        vector=max(device.traits.get("load_bytes", _WORD) // _WORD, 1),
        half=half,
        images="texture_cache" in features,
        staged="shared_memory_in_ram" not in features,
        extensions=tuple(extensions),
        attribute=_SIZED[sized[0]].format(lanes=lanes) if lanes else "",
    )
