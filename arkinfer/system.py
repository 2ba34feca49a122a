"""Memory of this machine, in bytes."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")
_PROC = Path("/proc")


def total_memory() -> int:
    """Physical memory, or the container's limit when that is smaller; 0 when unknown."""
    limits = [limit for limit, _ in _cgroups()]
    return min([_physical()[0], *limits])


def available_memory() -> int:
    """What can be taken without swapping; 0 when unknown.

    On Linux: ``MemAvailable``, and in a container the limit less what is in use there
    (pages of mapped files that can be dropped do not count as used).
    """
    rooms = [max(0, limit - used) for limit, used in _cgroups()]
    return min([_physical()[1], *rooms])


def _physical() -> tuple[int, int]:
    """(total, available)."""
    if sys.platform == "darwin":
        return _darwin()
    if sys.platform == "win32":
        return _windows()
    fields = _key_values(_PROC / "meminfo")
    total = fields.get("MemTotal:", 0) * 1024
    return total, fields.get("MemAvailable:", fields.get("MemFree:", 0)) * 1024


def _key_values(path: Path) -> dict[str, int]:
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return {}
    pairs = (line.split()[:2] for line in lines)
    return {p[0]: int(p[1]) for p in pairs if len(p) == 2 and p[1].isdigit()}


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):  # no such group, or "max"
        return None


def _cgroups() -> list[tuple[int, int]]:
    """(limit, used) of each memory-limited control group that this process is in."""
    try:
        lines = (_PROC / "self/cgroup").read_text().splitlines()
    except OSError:
        return []
    result = []
    for line in lines:
        _, controllers, name = line.split(":", 2)
        if controllers == "":
            root, limit_name, used_name = _CGROUP, "memory.max", "memory.current"
            cache_key = "inactive_file"
        elif "memory" in controllers.split(","):
            root, cache_key = _CGROUP / "memory", "total_inactive_file"
            limit_name, used_name = "memory.limit_in_bytes", "memory.usage_in_bytes"
        else:
            continue
        folder = root / name.lstrip("/")
        # Limits of parents hold too; in a container the path may only exist outside.
        for group in [folder, *folder.parents]:
            if not group.is_relative_to(root):
                break
            limit, used = _number(group / limit_name), _number(group / used_name)
            if limit is not None and used is not None and limit < 1 << 60:
                cache = _key_values(group / "memory.stat").get(cache_key, 0)
                result.append((limit, max(0, used - cache)))
    return result


def _darwin() -> tuple[int, int]:
    def sysctl(name: str) -> int:
        done = subprocess.run(["sysctl", "-n", name], capture_output=True, text=True, check=False)
        return int(done.stdout) if done.stdout.strip().isdigit() else 0

    total = sysctl("hw.memsize")
    pages = sum(sysctl(f"vm.page_{kind}_count") for kind in ("free", "speculative", "purgeable"))
    # Inactive file pages are not reported by sysctl; half the memory is a fair floor.
    return total, max(pages * os.sysconf("SC_PAGE_SIZE"), total // 2)


def _windows() -> tuple[int, int]:
    class Status(ctypes.Structure):
        _fields_ = [
            ("length", ctypes.c_ulong),
            ("load", ctypes.c_ulong),
            ("total", ctypes.c_uint64),
            ("available", ctypes.c_uint64),
            ("rest", ctypes.c_uint64 * 5),
        ]

    status = Status(length=ctypes.sizeof(Status))
    if not ctypes.windll.kernel32.GlobalMemoryStatusEx(ctypes.byref(status)):  # type: ignore[attr-defined,unused-ignore]
        return 0, 0
    return status.total, status.available
