"""``arkinfer devices``, and what the other commands say of devices."""

from __future__ import annotations

import contextlib
import io
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from arkinfer import backends, devices
from arkinfer.bundle import Bundle
from arkinfer.cli import device_views
from tests.support.command_line import KIND, Run, assert_one_line
from tests.support.manifests import reseal_manifest


def test_devices(run: Run) -> None:
    code, out, _ = run("devices")
    assert (code, "cpu" in out) == (0, True)
    record = json.loads(run("devices", "--json")[1])
    assert "cpu" in [target["name"] for target in record["targets"]]
    assert record["machine"]["cores"] >= 1
    assert record["machine"]["isas"][-1] == "scalar"


def test_devices_are_plain_lines_off_a_terminal(run: Run) -> None:
    lines = run("devices")[1].splitlines()
    for profile in devices.profiles():
        (line,) = (line for line in lines if line.startswith(f"{profile.name} "))
        assert line.endswith(profile.description)
        assert profile.default.backend in line
        absent = profile.default.backend not in backends.names()
        assert ("(not there)" in line) == absent


def test_one_device_is_shown_with_its_sources(run: Run) -> None:
    code, out, _ = run("devices", "rk3588")
    assert code == 0
    profile = devices.find("rk3588")[0]
    texts = [*profile.bandwidth.sources, *profile.units["gpu"].sources]
    assert all(text in out for text in texts)
    assert re.search(r"memory bandwidth +33\.8 GB/s", out)
    assert re.search(r"gpu fp16 +not known", out)
    assert re.search(r"gpu shared memory +32768 bytes \?", out), "what nobody could check is marked"
    record = json.loads(run("devices", "rk3588", "--json")[1])["profile"]
    assert record["units"]["cpu"]["peak"]["int8"]["value"] == 0.614
    assert record["bandwidth"]["sources"] == list(profile.bandwidth.sources)


def test_detect_shows_this_machine_alone(run: Run) -> None:
    out = run("devices", "--detect")[1]
    assert "This machine" in out and "jetson" not in out
    assert set(json.loads(run("devices", "--detect", "--json")[1])) == {"machine"}


def test_predictions_for_one_device(run: Run) -> None:
    arguments = ("raspberry-pi-5", "--model", "MiniCPM4.1-8B", "--context", 131072)
    code, out, _ = run("devices", *arguments)
    assert code == 0
    assert "A prediction, not a measurement" in out
    assert "60% of the bandwidth" in out
    record = json.loads(run("devices", *arguments, "--json")[1])
    assert record["model"]["kv"] == "fp16", "nobody gets another type unasked"
    assert [one["context"] for one in record["predictions"]] == [2048 << i for i in range(7)]
    first, last = record["predictions"][0], record["predictions"][-1]
    # Sparse attention: 64 times the text, hardly any slower.
    assert 0.8 < last["decode_tokens_per_s"] / first["decode_tokens_per_s"] < 1
    assert first["fits_in"] == 8 << 30
    limit = 17e9 / first["bytes_per_token"]
    assert 0.5 * limit < first["decode_tokens_per_s"] < 0.6 * limit
    dense = json.loads(run("devices", *arguments, "--sparse", "off", "--json")[1])
    assert dense["predictions"][-1]["decode_tokens_per_s"] < last["decode_tokens_per_s"] / 2
    int8 = json.loads(run("devices", *arguments, "--kv", "int8", "--json")[1])
    assert int8["predictions"][-1]["memory"] < last["memory"]


def test_predictions_for_all_devices(run: Run) -> None:
    record = json.loads(run("devices", "--model", "MiniCPM4-0.5B", "--json")[1])
    rows = {row["device"]: row for row in record["devices"]}
    assert set(rows) == {p.name for p in devices.profiles() if not p.generic}
    fast, slow = rows["h100"]["predictions"], rows["raspberry-pi-5"]["predictions"]
    assert [one["context"] for one in fast] == [4096, 32768]
    assert fast[0]["decode_tokens_per_s"] > 5 * slow[0]["decode_tokens_per_s"]
    assert rows["snapdragon-8-elite"]["predictions"][0]["prefill_tokens_per_s"] is None
    out = run("devices", "--model", "MiniCPM4-0.5B")[1]
    assert all(name in out for name in rows)


def test_a_weight_beyond_the_largest_allocation_is_told(run: Run) -> None:
    arguments = ("--model", "MiniCPM4-8B", "--quant", "none")
    assert "The largest weight has" not in run("devices", "snapdragon-8-elite", *arguments)[1]
    record = json.loads(run("devices", "snapdragon-8-elite", *arguments, "--json")[1])
    record["largest_allocation"] = record["model"]["largest_tensor"] - 1
    with contextlib.redirect_stdout(io.StringIO()) as out:
        device_views.show_prediction(record)
    assert "The largest weight has" in out.getvalue()


def test_predictions_from_measurements(run: Run, tiny_bundle: Callable[..., Bundle]) -> None:
    bundle = tiny_bundle(KIND)
    record = json.loads(run("devices", "--measure", "--model", bundle.path, "--json")[1])
    assert record["assumed"]["origin"] == "measured here"
    measured = record["machine"]["measured"]
    assert record["assumed"]["bandwidth_bytes_per_s"] == measured["bandwidth"] > 0
    assert measured["int8"] >= measured["fp32"] > 0
    assert record["predictions"][0]["decode_tokens_per_s"] > 0
    assert "measured" in run("devices", "cpu", "--measure", "--model", bundle.path)[1]


@pytest.mark.parametrize(
    ("arguments", "name", "text"),
    [
        (["abacus"], "UnknownDevice", "rk3588"),
        (["h100:cpu"], "UnknownDevice", "h100:gpu"),
        (["gone.toml"], "DeviceProfile", "gone.toml cannot be read"),
        (["cpu", "--model", "MiniCPM4-8B"], "InvalidOption", "--measure"),
        (["h100", "--measure"], "InvalidOption", "not this machine"),
        (["--kv", "int8"], "InvalidOption", "--model"),
        (["h100", "--model", "GPT-5"], "InputNotFound", "MiniCPM4.1-8B"),
        (["h100", "--model", "MiniCPM4-8B", "--context", 1 << 20], "InvalidOption", "131072"),
        (["h100", "--model", "MiniCPM4-8B", "--sparse", "some"], "InvalidOption", "force"),
    ],
)
def test_devices_says_what_is_wrong(
    run: Run, arguments: list[object], name: str, text: str
) -> None:
    assert text in assert_one_line(run("devices", *arguments), name)


def test_compiling_for_a_device(
    run: Run, tiny_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    output = tmp_path / "x.ark"
    arguments = (tiny_checkpoint(KIND), "-o", output, "--context", 128)
    for target in ("raspberry-pi-5", "jetson-orin:cpu"):
        assert run("compile", *arguments, "--target", target)[0] == 0
        manifest = Bundle.open(output).manifest
        profile = devices.find(target)[0]
        assert (manifest.backend, manifest.device["name"]) == ("cpu", target)
        assert (manifest.device["arch"], manifest.device["features"]) == (
            "aarch64",
            ["neon", "dotprod"],
        )
        assert manifest.kv is None  # a recommended type is shown, and taken only when asked for
        assert manifest.quantization.requested == profile.quantization
    assert run("compile", *arguments, "--target", "raspberry-pi-5", "--kv", "fp32")[0] == 0
    assert Bundle.open(output).manifest.kv == "fp32"


def test_inspect_predicts_for_the_device(
    run: Run, tiny_bundle: Callable[..., Bundle], null_bundle: Path
) -> None:
    bundle = tiny_bundle(KIND, compile={"target": "raspberry-pi-5"})
    record = json.loads(run("inspect", bundle.path, "--json")[1])["predicted"]
    assert (record["device"], record["model"]["kv"]) == ("raspberry-pi-5", "fp16")
    assert record["predictions"][0]["decode_tokens_per_s"] > 0
    assert "Predicted for raspberry-pi-5" in run("inspect", bundle.path)[1]
    assert json.loads(run("inspect", null_bundle, "--json")[1])["predicted"] is None


def test_a_hostile_bundle_names_no_file(
    run: Run, tiny_bundle: Callable[..., Bundle], tmp_path: Path
) -> None:
    copy = shutil.copytree(tiny_bundle(KIND).path, tmp_path / "copy.ark")
    manifest = Bundle.open(copy).manifest
    for name in ("/etc/passwd.toml", "h100.toml", "h100:npu", 7):
        reseal_manifest(copy, replace(manifest, device={"name": name}).to_json())
        code, out, _ = run("inspect", copy)
        assert (code, "Predicted" in out) == (0, False)
