"""Device profiles: one TOML file per device, and the detection of this machine.

A profile is data: ``description``, ``backend``, ``arch`` (``"any"``,
``"x86_64"`` or ``"aarch64"``), and optionally ``features`` (instruction-set
extensions that must be there), ``cores`` and ``memory`` (bytes; 0: whatever
the machine has).
"""

from __future__ import annotations

import os
import platform
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path

from arkinfer.errors import UnknownBackendError
from arkinfer.system import total_memory

_FOLDER = Path(__file__).parent
_ARCH = {"amd64": "x86_64", "x86_64": "x86_64", "arm64": "aarch64", "aarch64": "aarch64"}
_INTERESTING = {
    "avx2": "avx2",
    "fma": "fma",
    "f16c": "f16c",
    "avx512f": "avx512",
    "avx512_vnni": "avx512vnni",
    "avx_vnni": "avxvnni",
    "asimd": "neon",
    "asimddp": "dotprod",
    "i8mm": "i8mm",
}


@dataclass(frozen=True)
class Device:
    """What a bundle is compiled for.

    Attributes:
        name: how users ask for it (``--target``).
        backend: the backend that compiles for it.
        arch: ``"any"``, ``"x86_64"`` or ``"aarch64"``.
        features: instruction-set extensions that are required (profiles) or
            present (detected devices), in ArkInfer's spelling.
        cores: usable cores; 0 when it is not fixed.
        memory: bytes; 0 when it is not fixed.
        description: one line for ``arkinfer devices``.
    """

    name: str
    backend: str
    arch: str = "any"
    features: tuple[str, ...] = ()
    cores: int = 0
    memory: int = 0
    description: str = ""

    def runs_on(self, machine: Device) -> bool:
        """Whether a bundle compiled for this profile runs on a detected machine."""
        return self.arch in ("any", machine.arch) and set(self.features) <= set(machine.features)


def all() -> tuple[Device, ...]:
    """Every profile, ordered by name."""
    return tuple(_read(path) for path in sorted(_FOLDER.glob("*.toml")))


def get(name: str) -> Device:
    """The profile of a name.

    Raises:
        UnknownBackendError: no such profile; lists those that exist.
    """
    profiles = {device.name: device for device in all()}
    if name not in profiles:
        raise UnknownBackendError(
            f"no device is called {name[:60]!r}", f"one of {', '.join(profiles)}"
        )
    return profiles[name]


def detect() -> Device:
    """This machine, as the ``cpu`` backend sees it."""
    arch = _ARCH.get(platform.machine().lower(), platform.machine().lower())
    return Device(
        name="cpu",
        backend="cpu",
        arch=arch,
        features=_features(arch),
        cores=_cores(),
        memory=total_memory(),
        description=_model_name() or platform.processor() or arch,
    )


def _read(path: Path) -> Device:
    data = tomllib.loads(path.read_text("utf-8"))
    features = tuple(data.pop("features", ()))
    return Device(name=path.stem, features=features, **data)


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _cpuinfo() -> str:
    try:
        return Path("/proc/cpuinfo").read_text("utf-8", "replace")
    except OSError:
        return ""


def _features(arch: str) -> tuple[str, ...]:
    found = re.search(r"^(?:flags|Features)\s*:(.*)$", _cpuinfo(), re.MULTILINE)
    words = set(found.group(1).split()) if found else set()
    if not words and arch == "aarch64":
        words = {"asimd"}  # NEON is part of the architecture
    return tuple(ours for theirs, ours in _INTERESTING.items() if theirs in words)


def _model_name() -> str:
    found = re.search(r"^model name\s*:\s*(.*)$", _cpuinfo(), re.MULTILINE)
    return found.group(1).strip() if found else ""
