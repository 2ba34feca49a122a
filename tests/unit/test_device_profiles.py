"""Reading profiles: what is written comes back, and whatever is wrong is named with its place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from arkinfer import devices
from arkinfer.devices import LIMITS, PRECISIONS, Figure, Profile
from arkinfer.errors import DeviceProfileError

# A machine that others use meanwhile draws slowly now and then.
patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

GOOD: dict[str, Any] = {
    "description": "A board",
    "detect": ["Board 1"],
    "sources": {"sheet": "https://example.org/sheet", "test": "A test report"},
    "memory": {
        "sizes": [4, 8.5],
        "source": "sheet",
        "bandwidth": {"value": 17, "source": ["sheet", "test"], "how": "32 bits"},
    },
    "units": {
        "gpu": {
            "backend": "opencl",
            "arch": "mali-g610",
            "source": "sheet",
            "peak": {"fp16": {"unknown": "nobody says"}},
            "limits": {"largest_allocation": {"value": 1 << 30, "source": "test"}},
            "traits": {"subgroup": {"value": 16, "source": "test"}},
        },
        "cpu": {
            "backend": "cpu",
            "arch": "aarch64",
            "features": ["neon"],
            "cores": 8,
            "threads": 4,
            "source": "sheet",
            "bandwidth": {"value": 12.5, "source": "test", "unverified": True},
        },
    },
    "recommended": {"quantization": "w4g128", "kv": "int8", "why": "it is small"},
}


def toml(value: Any) -> str:
    """A value in TOML; tables inline, which is the same to a reader."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(k)} = {toml(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    if isinstance(value, float):
        return repr(value)
    return json.dumps(value)


def text(data: dict[str, Any]) -> str:
    return "\n".join(f"{json.dumps(key)} = {toml(value)}" for key, value in data.items())


def changed(path: str, value: Any) -> dict[str, Any]:
    """GOOD with one place changed, or taken away where the value is None."""
    data = json.loads(json.dumps(GOOD))
    *parents, last = path.split(".")
    table = data
    for name in parents:
        table = table[name]
    if value is None:
        del table[last]
    else:
        table[last] = value
    return data


def test_what_is_written_comes_back() -> None:
    profile = devices.parse(text(GOOD), "board")
    sheet, test = GOOD["sources"].values()
    assert (profile.name, profile.description) == ("board", "A board")
    assert profile.sizes == (4 << 30, 17 << 29)
    assert profile.bandwidth == Figure(17, (sheet, test), "32 bits")
    assert list(profile.units) == ["gpu", "cpu"]
    assert profile.default is profile.units["gpu"]
    assert profile.default.peak["fp16"] == Figure(None, (), "nobody says")
    assert profile.default.limits["largest_allocation"] == Figure(1 << 30, (test,))
    assert profile.default.traits["subgroup"] == Figure(16, (test,))
    cpu = profile.units["cpu"]
    assert (cpu.features, cpu.cores, cpu.threads) == (("neon",), 8, 4)
    assert cpu.bandwidth == Figure(12.5, (test,), verified=False)
    assert (profile.quantization, profile.kv, profile.why) == ("w4g128", "int8", "it is small")
    assert profile.detect == ("Board 1",)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("description", None, "description is ''"),
        ("description", "two\nlines", "description is.*a line of text"),
        ("colour", "red", "colour is unknown; expected description"),
        ("memory", None, "memory is missing.*generic"),
        ("memory.sizes", [8, 4], r"memory.sizes.*ascending"),
        ("memory.sizes", ["8"], r"memory.sizes is '8'.*list of numbers"),
        ("memory.source", None, "memory.source is missing"),
        ("memory.bandwidth", None, "memory.bandwidth is missing"),
        ("memory.bandwidth.value", 0, "memory.bandwidth.value is '0'.*above 0"),
        ("memory.bandwidth.value", "fast", "memory.bandwidth.value is 'fast'.*numbers"),
        ("memory.bandwidth.value", True, "memory.bandwidth.value is 'True'.*numbers"),
        ("memory.bandwidth.source", None, "memory.bandwidth.source is missing"),
        ("memory.bandwidth.source", "rumour", "memory.bandwidth.source is 'rumour'.*sources"),
        ("memory.bandwidth.unknown", "why", "memory.bandwidth.value is unknown"),
        ("sources.spare", "never used", "sources.spare is referred to by nothing"),
        ("sources.sheet", "", "sources.sheet is ''"),
        ("units", {}, "units is missing"),
        ("units.npu", {}, "units.npu is unknown; expected cpu, gpu"),
        ("units.cpu.backend", None, "units.cpu.backend is ''"),
        ("units.cpu.cores", -1, "units.cpu.cores is '-1'"),
        ("units.cpu.cores", 1.5, "units.cpu.cores is '1.5'.*whole number"),
        ("units.cpu.features", "neon", "units.cpu.features is 'neon'.*a list"),
        ("units.cpu.source", None, "units.cpu.source is missing"),
        ("units.gpu.peak.fp12", {"unknown": "x"}, "units.gpu.peak.fp12 is unknown.*fp16"),
        ("units.gpu.peak.fp16", 3, "units.gpu.peak.fp16 is '3'.*a table"),
        ("units.gpu.peak.fp16.unknown", "", "units.gpu.peak.fp16.unknown is ''"),
        ("recommended.kv", "fp8", "recommended.kv is 'fp8'.*int8"),
        ("recommended.why", None, "recommended.why is ''"),
    ],
)
def test_what_is_wrong_is_named(path: str, value: Any, message: str) -> None:
    with pytest.raises(DeviceProfileError, match=f"board.toml: {message}"):
        devices.parse(text(changed(path, value)), "board")


def test_files(tmp_path: Path) -> None:
    path = tmp_path / "board.toml"
    path.write_text(text(GOOD))
    assert devices.read(path) == devices.parse(text(GOOD), "board")
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(DeviceProfileError, match="not UTF-8"):
        devices.read(path)
    path.write_bytes(b"#" * (1 << 17))
    with pytest.raises(DeviceProfileError, match="larger than 64 KiB"):
        devices.read(path)
    with pytest.raises(DeviceProfileError, match="gone.toml cannot be read"):
        devices.read(tmp_path / "gone.toml")
    with pytest.raises(DeviceProfileError, match="not TOML"):
        devices.parse("[[", "board")
    with pytest.raises(DeviceProfileError, match="cannot be called 'My Board'"):
        devices.parse(text(GOOD), "My Board")


SCALARS = st.one_of(
    st.text(max_size=12), st.booleans(), st.integers(), st.floats(), st.lists(st.integers())
)
KEYS = st.sampled_from(
    [*GOOD, *GOOD["memory"], *GOOD["units"], *GOOD["units"]["cpu"], "value", "unknown", "how"]
)
VALUES = st.recursive(SCALARS, lambda inner: st.dictionaries(KEYS, inner, max_size=4))


def parses_or_is_refused(source: str) -> None:
    try:
        profile = devices.parse(source, "board")
    except DeviceProfileError as error:
        assert "\n" not in str(error)
        assert "board" in str(error)
    else:
        assert isinstance(profile, Profile)
        assert profile.default.backend


@patient
@given(st.text(alphabet='[]={}".ab1\n ', max_size=80))
def test_any_text_is_read_or_refused(source: str) -> None:
    parses_or_is_refused(source)


@patient
@given(st.dictionaries(KEYS, VALUES, max_size=6))
def test_any_tables_are_read_or_refused(data: dict[str, Any]) -> None:
    parses_or_is_refused(text(data))


@settings(patient, max_examples=200)
@given(st.data())
def test_any_change_is_read_or_refused(data: st.DataObject) -> None:
    changed_data = json.loads(json.dumps(GOOD))
    table = changed_data
    while True:
        key = data.draw(st.sampled_from(sorted(table)))
        inner = table[key]
        if not isinstance(inner, dict) or not inner or data.draw(st.booleans()):
            break
        table = inner
    table[key] = data.draw(VALUES)
    parses_or_is_refused(text(changed_data))


FIGURES = st.one_of(
    st.builds(lambda why: {"unknown": why}, st.just("nobody says")),
    st.builds(
        lambda value: {"value": value, "source": "sheet"},
        st.floats(min_value=1e-3, max_value=1e15, allow_nan=False),
    ),
)


@patient
@given(
    st.dictionaries(st.sampled_from(PRECISIONS), FIGURES, max_size=4),
    st.dictionaries(st.sampled_from(LIMITS), FIGURES, max_size=3),
)
def test_figures_come_back(peak: dict[str, Any], limits: dict[str, Any]) -> None:
    data = changed("units.gpu", GOOD["units"]["gpu"] | {"peak": peak, "limits": limits})
    data["memory"]["source"] = ["sheet", "test"]
    unit = devices.parse(text(data), "board").default
    for written, found in ((peak, unit.peak), (limits, unit.limits)):
        assert {name: figure.value for name, figure in found.items()} == {
            name: figure.get("value") for name, figure in written.items()
        }
