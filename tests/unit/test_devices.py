"""The profiles that come along, finding them by name, and finding this machine."""

from __future__ import annotations

import platform
import re
from pathlib import Path

import pytest

from arkinfer import devices, kv_types
from arkinfer.devices import Device, Profile
from arkinfer.errors import DeviceProfileError, UnknownBackendError, UnknownDeviceError
from arkinfer.quantize import policy

PROFILES = {profile.name: profile for profile in devices.profiles()}
SPECIFIC = [profile for profile in PROFILES.values() if not profile.generic]
PROMISED = {
    *(
        "opencl",
        "adreno",
        "intel",
        "mali",
        "cpu",
        "x86-64",
        "arm64",
        "rk3588",
        "raspberry-pi-5",
        "rtx-4090",
        "h100",
    ),
    *("jetson-orin", "jetson-orin-nx", "jetson-orin-nano", "jetson-thor"),
    *(f"apple-m{n}{kind}" for n in (1, 2, 3, 4) for kind in ("", "-pro", "-max")),
    *("apple-a15", "apple-a16", "apple-a17-pro", "apple-a18", "apple-a18-pro"),
    *("snapdragon-8-gen-2", "snapdragon-8-gen-3", "snapdragon-8-elite"),
    *("dimensity-9300", "dimensity-9400"),
}
ARCHITECTURES = {
    "cpu": r"any|x86_64|aarch64",
    "cuda": r"sm_\d+",
    "metal": r"apple\d+",
    "opencl": r"any|intel|adreno(-\d+)?|mali(-g\d+)?|immortalis-g\d+",
}


def test_the_promised_devices_are_there() -> None:
    assert set(PROFILES) >= PROMISED
    assert [device.name for device in devices.all()] == sorted(PROFILES)


@pytest.mark.parametrize("profile", PROFILES.values(), ids=PROFILES)
def test_profile(profile: Profile) -> None:
    for unit in profile.units.values():
        assert re.fullmatch(ARCHITECTURES[unit.backend], unit.arch)
        assert unit.threads <= unit.cores
        if unit.backend == "cpu" and unit.arch == "aarch64":
            assert "neon" in unit.features
    if profile.quantization:
        policy.parse(profile.quantization)
    if profile.kv:
        kv_types.parse(profile.kv)
    name = profile.name
    assert devices.get(name) == profile.device()
    for unit in profile.units.values():
        assert devices.find(f"{name}:{unit.name}") == (profile, unit)


@pytest.mark.parametrize("profile", SPECIFIC, ids=lambda profile: profile.name)
def test_profile_of_one_device(profile: Profile) -> None:
    assert profile.bandwidth.value is not None
    assert profile.sizes
    assert profile.quantization and profile.kv and profile.why
    for unit in profile.units.values():
        assert unit.peak, "peaks are given, or said to be unknown"
        for figure in [*unit.peak.values(), *unit.limits.values(), *unit.traits.values()]:
            assert figure.how or figure.value is not None


def test_peaks_of_one_precision_do_not_exceed_those_of_a_narrower_one() -> None:
    order = ("fp32", "fp16", "fp8", "fp4")
    for profile in SPECIFIC:
        for unit in profile.units.values():
            known = [
                figure.value
                for name in order
                if (figure := unit.peak.get(name)) and figure.value is not None
            ]
            assert known == sorted(known), profile.name


def test_unknown_device_lists_the_known() -> None:
    with pytest.raises(UnknownDeviceError, match=r"abacus.*x86-64.*\.toml"):
        devices.get("abacus")
    assert issubclass(UnknownDeviceError, UnknownBackendError)
    with pytest.raises(UnknownDeviceError, match="h100 has no cpu.*h100:gpu"):
        devices.get("h100:cpu")
    with pytest.raises(UnknownDeviceError, match="rk3588:npu"):
        devices.get("rk3588:npu")


def test_a_path_stands_for_a_device(tmp_path: Path) -> None:
    path = tmp_path / "my-board.toml"
    path.write_text(
        'description = "mine"\ngeneric = true\n[units.cpu]\nbackend = "cpu"\narch = "aarch64"\n'
    )
    for name in (str(path), f"{path}:cpu"):
        assert devices.get(name) == Device("my-board", "cpu", "aarch64", description="mine")
    with pytest.raises(DeviceProfileError, match="other.toml cannot be read"):
        devices.get(str(tmp_path / "other.toml"))


def test_a_device_carries_what_backends_need() -> None:
    device = devices.get("snapdragon-8-gen-2")
    assert device.limits["largest_allocation"] == 1 << 30
    assert "work_group" not in device.limits, "unknown limits are left out"
    assert device.traits == {"subgroup": 64, "load_bytes": 16}
    assert device.quantization == "w4g128"
    assert devices.get("snapdragon-8-gen-2:cpu").name == "snapdragon-8-gen-2:cpu"
    assert devices.get("h100").memory == 80 << 30
    assert device.memory == 0, "sold with several sizes"


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
    assert devices.get("raspberry-pi-5").runs_on(board)
    assert not devices.get("x86-64").runs_on(board)
    assert not devices.get("x86-64").runs_on(Device("old", "cpu", "x86_64", ("sse2",)))
    assert not devices.get("jetson-orin").runs_on(board), "its GPU is meant"
    assert devices.get("jetson-orin:cpu").runs_on(board)


@pytest.mark.parametrize(
    ("files", "name"),
    [
        ({"device-tree/model": "Raspberry Pi 5 Model B Rev 1.0\0"}, "raspberry-pi-5"),
        ({"device-tree/compatible": "radxa,rock-5b\0rockchip,rk3588\0"}, "rk3588"),
        ({"device-tree/model": "NVIDIA Jetson AGX Orin Developer Kit\0"}, "jetson-orin"),
        ({"device-tree/model": "NVIDIA Jetson Orin NX HDK\0"}, "jetson-orin-nx"),
        (
            {"driver/nvidia/gpus/0000:01:00.0/information": "Model: \t NVIDIA H100 80GB HBM3\n"},
            "h100",
        ),
        ({"device-tree/model": "Acorn Archimedes\0"}, None),
        ({}, None),
    ],
)
def test_the_system_names_the_device(
    tmp_path: Path, files: dict[str, str], name: str | None
) -> None:
    for path, text in files.items():
        file = tmp_path / "proc" / path
        file.parent.mkdir(parents=True)
        file.write_text(text)
    found = devices.match(devices.profiles(), devices.names(tmp_path))
    assert (found.name if found else None) == name


def test_the_longest_name_decides() -> None:
    assert devices.match(devices.profiles(), ["Apple M1 Pro"]) is PROFILES["apple-m1-pro"]
    assert devices.match(devices.profiles(), ["Apple M1"]) is PROFILES["apple-m1"]
    words = [word for profile in SPECIFIC for word in profile.detect]
    assert len(set(words)) == len(words)
