"""What a device profile says, typed (docs/devices.md explains every field)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

Precision = Literal["fp32", "fp16", "bf16", "fp8", "fp4", "int8", "int4"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
# Bytes, bytes, pixels, pixels, work-items or threads.
Limit = Literal[
    "largest_allocation", "shared_memory", "image_width", "image_buffer_width", "work_group"
]
LIMITS: tuple[Limit, ...] = get_args(Limit)
# Lanes of a sub-group, and bytes that a lane best reads at once.
Trait = Literal["subgroup", "load_bytes"]
TRAITS: tuple[Trait, ...] = get_args(Trait)


@dataclass(frozen=True)
class Figure:
    """A number and where it is from.

    Attributes:
        value: None where nobody publishes it.
        sources: URLs or names of documents that say it, or from which it follows.
        how: how it follows from them, in words; why it is not known where ``value`` is None.
        verified: whether the sources were open when the figure was entered. Else it is what
            they are believed to say, or rests on an assumption that ``how`` names.
    """

    value: float | None
    sources: tuple[str, ...] = ()
    how: str = ""
    verified: bool = True


UNKNOWN = Figure(None, how="differs from machine to machine")


@dataclass(frozen=True)
class Device:
    """What a bundle is compiled for: one processor of a device.

    Attributes:
        name: how users ask for it (``--target``).
        backend: the backend that compiles for it.
        arch: ``"any"``, ``"x86_64"``, ``"aarch64"``, or a GPU's (``"sm_87"``, ``"adreno-750"``).
        features: instruction-set or API extensions that are required (profiles) or
            present (detected devices), in ArkInfer's spelling.
        cores: usable cores of a CPU; 0 when it is not fixed.
        memory: bytes; 0 when it is not fixed.
        description: one line for ``arkinfer devices``.
        limits: what one allocation, image or work-group may hold at most (:data:`LIMITS`).
        traits: what schedules follow besides (:data:`TRAITS`).
        quantization: what to compile with unless told otherwise; empty: no preference.
    """

    name: str
    backend: str
    arch: str = "any"
    features: tuple[str, ...] = ()
    cores: int = 0
    memory: int = 0
    description: str = ""
    limits: Mapping[str, int] = field(default_factory=dict)
    traits: Mapping[str, int] = field(default_factory=dict)
    quantization: str = ""

    def runs_on(self, machine: Device) -> bool:
        """Whether a bundle compiled for this device runs on a detected machine's CPU."""
        if self.backend != "cpu":
            return False
        return self.arch in ("any", machine.arch) and set(self.features) <= set(machine.features)


@dataclass(frozen=True)
class Unit:
    """One processor of a device.

    Attributes:
        name: ``"cpu"`` or ``"gpu"``.
        backend, arch, features: as :class:`Device`.
        cores: cores of a CPU, or what the maker calls the cores of its GPU; 0: not fixed.
        threads: threads that are worth computing with; 0: as many as there are cores.
        peak: operations per second of dense products (a product and a sum are two), in 10^12.
        bandwidth: 10^9 bytes per second where this processor gets less than the memory gives.
        limits: see :data:`LIMITS`.
        traits: see :data:`TRAITS`.
        sources: of ``arch``, ``features``, ``cores`` and ``threads``.
    """

    name: str
    backend: str
    arch: str
    features: tuple[str, ...] = ()
    cores: int = 0
    threads: int = 0
    peak: Mapping[str, Figure] = field(default_factory=dict)
    bandwidth: Figure | None = None
    limits: Mapping[str, Figure] = field(default_factory=dict)
    traits: Mapping[str, Figure] = field(default_factory=dict)
    sources: tuple[str, ...] = ()


@dataclass(frozen=True)
class Profile:
    """One device.

    Attributes:
        name: the file's name.
        units: its processors by name; the first is the one that ``--target NAME`` compiles for.
        sizes: memory that it is sold with, in bytes, ascending; empty: not fixed.
        bandwidth: of the memory, in 10^9 bytes per second.
        memory_sources: of ``sizes``; ``memory_verified`` as :attr:`Figure.verified`.
        quantization, kv: recommended; empty: none. The KV type is shown and never taken unasked,
            because it costs quality.
        why: the reason for what is recommended.
        detect: what the system calls it; the longest that is found names this machine.
        generic: stands for many machines, so it has no figures.
    """

    name: str
    description: str
    units: Mapping[str, Unit]
    sizes: tuple[int, ...] = ()
    bandwidth: Figure = UNKNOWN
    memory_sources: tuple[str, ...] = ()
    memory_verified: bool = True
    quantization: str = ""
    kv: str = ""
    why: str = ""
    detect: tuple[str, ...] = ()
    generic: bool = False

    @property
    def default(self) -> Unit:
        """The processor that ``--target NAME`` compiles for."""
        return next(iter(self.units.values()))

    def device(self, unit: Unit | None = None) -> Device:
        """The target that one of the processors is; the default one where none is named."""
        chosen = unit or self.default
        return Device(
            name=self.name if chosen is self.default else f"{self.name}:{chosen.name}",
            backend=chosen.backend,
            arch=chosen.arch,
            features=chosen.features,
            cores=chosen.cores if chosen.name == "cpu" else 0,
            memory=self.sizes[0] if len(self.sizes) == 1 else 0,
            description=self.description,
            limits=_known(chosen.limits),
            traits=_known(chosen.traits),
            quantization=self.quantization,
        )


def _known(figures: Mapping[str, Figure]) -> dict[str, int]:
    return {name: int(f.value) for name, f in figures.items() if f.value is not None}
