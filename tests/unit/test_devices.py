"""Device profiles are data that loads, and this machine is found."""

from __future__ import annotations

import platform

import pytest

from arkinfer import devices
from arkinfer.devices import Device
from arkinfer.errors import UnknownBackendError


def test_profiles() -> None:
    profiles = {device.name: device for device in devices.all()}
    assert {"cpu", "x86-64", "arm64"} <= set(profiles)
    for name, device in profiles.items():
        assert devices.get(name) == device
        assert device.arch in ("any", "x86_64", "aarch64")
        assert device.description
        assert device.backend


def test_unknown_device_lists_the_known() -> None:
    with pytest.raises(UnknownBackendError, match="abacus.*x86-64"):
        devices.get("abacus")


def test_this_machine() -> None:
    machine = devices.detect()
    assert machine.cores >= 1
    assert machine.memory > 0
    assert devices.get("cpu").runs_on(machine)
    names = {"x86_64": "x86_64", "AMD64": "x86_64", "aarch64": "aarch64", "arm64": "aarch64"}
    assert machine.arch == names.get(platform.machine(), platform.machine().lower())


def test_runs_on_needs_arch_and_features() -> None:
    board = Device("board", "cpu", "aarch64", ("neon", "dotprod"))
    assert devices.get("arm64").runs_on(board)
    assert not devices.get("x86-64").runs_on(board)
    assert not devices.get("x86-64").runs_on(Device("old", "cpu", "x86_64", ("sse2",)))
