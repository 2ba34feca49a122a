"""Device profiles: one TOML file per device, and the detection of this machine.

A profile is data; docs/devices.md describes it. Adding a device adds a file to this folder, or
anywhere: a path that ends in ``.toml`` stands for a device wherever a name does.
"""

from __future__ import annotations

import functools
from pathlib import Path

from arkinfer.devices._detect import detect, match, names
from arkinfer.devices._profile import LIMITS, PRECISIONS, Device, Figure, Profile, Unit
from arkinfer.devices._read import parse, read
from arkinfer.errors import UnknownDeviceError

__all__ = [
    "LIMITS",
    "PRECISIONS",
    "Device",
    "Figure",
    "Profile",
    "Unit",
    "all",
    "detect",
    "find",
    "get",
    "here",
    "match",
    "names",
    "parse",
    "profiles",
    "read",
]

_FOLDER = Path(__file__).parent


@functools.cache
def profiles() -> tuple[Profile, ...]:
    """Every profile that comes with ArkInfer, ordered by name."""
    return tuple(read(path) for path in sorted(_FOLDER.glob("*.toml"), key=lambda p: p.stem))


def all() -> tuple[Device, ...]:
    """What each profile compiles for by default, ordered by name."""
    return tuple(profile.device() for profile in profiles())


def find(name: str) -> tuple[Profile, Unit]:
    """The device and the processor that a name stands for.

    Args:
        name: a profile's name or the path of a ``.toml`` file, for its default
            processor; with ``":cpu"`` or ``":gpu"`` behind it for that one.

    Raises:
        UnknownDeviceError: no such profile, or it has no such processor; lists those that exist.
        DeviceProfileError: a file that breaks the rules.
    """
    base, colon, unit = name.rpartition(":")
    if not colon or unit not in ("cpu", "gpu"):
        base, unit = name, ""
    if base.endswith(".toml"):
        profile = read(Path(base))
    else:
        known = {profile.name: profile for profile in profiles()}
        if base not in known:
            raise UnknownDeviceError(
                f"no device is called {base[:60]!r}",
                f"one of {', '.join(known)}, or the path of a .toml file",
            )
        profile = known[base]
    if unit and unit not in profile.units:
        raise UnknownDeviceError(
            f"{profile.name} has no {unit}", f"{profile.name}:{next(iter(profile.units))}"
        )
    return profile, profile.units[unit] if unit else profile.default


def get(name: str) -> Device:
    """What a name compiles for; see :func:`find`.

    Raises:
        UnknownDeviceError, DeviceProfileError: as :func:`find`.
    """
    profile, unit = find(name)
    return profile.device(unit)


def here() -> Profile | None:
    """The profile of this machine, where one names it."""
    return match(profiles(), names())
