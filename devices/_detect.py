"""This machine: its processor, and what its system calls it."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from arkinfer.devices._profile import Device, Profile
from arkinfer.system import total_memory

_ARCH = {"amd64": "x86_64", "x86_64": "x86_64", "arm64": "aarch64", "aarch64": "aarch64"}
_INTERESTING = {
    "avx2": "avx2",
    "fma": "fma",
    "f16c": "f16c",
    "avx512f": "avx512",
    "avx512_vnni": "avx512vnni",
    "avx_vnni": "avxvnni",
    "amx_int8": "amx",
    "asimd": "neon",
    "asimddp": "dotprod",
    "i8mm": "i8mm",
}
_APPLE = {
    "hw.optional.AdvSIMD": "neon",
    "hw.optional.arm.FEAT_DotProd": "dotprod",
    "hw.optional.arm.FEAT_I8MM": "i8mm",
}
_ROOT = Path("/")


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


def names(root: Path = _ROOT) -> list[str]:
    """What the system calls this machine, its processor and its NVIDIA GPUs.

    Args:
        root: the folder that holds ``proc`` (tests give another).
    """
    found = [
        _text(root / "proc/device-tree/model"),  # boards: "Raspberry Pi 5 Model B Rev 1.0"
        *_text(root / "proc/device-tree/compatible").split("\0"),  # "rockchip,rk3588"
        *(
            match.group(1)
            for file in sorted(root.glob("proc/driver/nvidia/gpus/*/information"))
            for match in [re.search(r"^Model:\s*(.*)$", _text(file), re.MULTILINE)]
            if match
        ),
    ]
    if root == _ROOT:
        found += [_model_name(), _android_model()]
    return [name.strip("\0 \n\t") for name in found if name.strip("\0 \n\t")]


def match(profiles: Iterable[Profile], found: Iterable[str]) -> Profile | None:
    """The profile whose ``detect`` names one of these; the longest name decides."""
    texts = [text.lower() for text in found]
    hits = [
        (len(word), profile.name, profile)
        for profile in profiles
        for word in profile.detect
        if any(word.lower() in text for text in texts)
    ]
    return max(hits, key=lambda hit: hit[:2])[2] if hits else None


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8", "replace")
    except OSError:
        return ""


def _features(arch: str) -> tuple[str, ...]:
    if sys.platform == "darwin":
        return tuple(ours for name, ours in _APPLE.items() if _said("sysctl", "-n", name) == "1")
    found = re.search(r"^(?:flags|Features)\s*:(.*)$", _text(_ROOT / "proc/cpuinfo"), re.MULTILINE)
    words = set(found.group(1).split()) if found else set()
    if not words and arch == "aarch64":
        words = {"asimd"}  # NEON is part of the architecture
    return tuple(ours for theirs, ours in _INTERESTING.items() if theirs in words)


def _model_name() -> str:
    if sys.platform == "darwin":
        return _said("sysctl", "-n", "machdep.cpu.brand_string")  # "Apple M1 Pro"
    found = re.search(r"^model name\s*:\s*(.*)$", _text(_ROOT / "proc/cpuinfo"), re.MULTILINE)
    return found.group(1).strip() if found else ""


def _android_model() -> str:
    """The system-on-chip's number (``"SM8650"``), on Android."""
    return _said("getprop", "ro.soc.model") if "ANDROID_ROOT" in os.environ else ""


def _said(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=5)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()
