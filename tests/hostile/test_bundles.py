"""Damaged and hostile bundles: a named error each time, never a crash."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import arkinfer
from arkinfer import manifest as manifests
from arkinfer.bundle import Bundle
from arkinfer.errors import (
    ArkInferError,
    BundleVersionError,
    DamagedBundleError,
    InvalidBundleError,
    InvalidOptionError,
)
from arkinfer.runtime.native_session import NativeModel, NativeSession, SessionOptions
from tests.support.junk import JUNK, changed, paths
from tests.support.manifests import MANIFEST, reseal, reseal_manifest
from tests.support.tiny_models import SMALL_SPARSE

FILES = (
    "DIGEST",
    "manifest.json",
    "graph.onnx",
    "plan.json",
    "weights.bin",
    "tokenizer.json",
    "vocabulary.bin",
    "chat_template.jinja",
)


@pytest.fixture
def sealed(tiny_bundle: Callable[..., Bundle], tmp_path: Path) -> Path:
    """A copy of a whole bundle, to be spoilt."""
    bundle = tiny_bundle(
        "minicpm4.1-8b", compile={"quant": "w4g32z"}, dtype="bf16", sparse=SMALL_SPARSE
    )
    return Path(shutil.copytree(bundle.path, tmp_path / "copy.ark"))


def test_the_copy_is_good(sealed: Path) -> None:
    Bundle.open(sealed).check()
    assert sorted(p.name for p in sealed.iterdir()) == sorted(FILES)
    logits = arkinfer.load(sealed).session().append([1, 5, 7])
    assert logits.shape == (1, 320)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("where", [0.0, 0.5, 1.0])
def test_one_flipped_bit(sealed: Path, name: str, where: float) -> None:
    data = bytearray((sealed / name).read_bytes())
    data[int(where * (len(data) - 1))] ^= 0x10
    (sealed / name).write_bytes(data)
    named = (DamagedBundleError, InvalidBundleError, BundleVersionError)
    with pytest.raises(named):
        Bundle.open(sealed).check()
    with pytest.raises(named):  # of the weights when they would give logits
        arkinfer.load(sealed).session().append([1])


def test_damaged_weights_give_no_logits(sealed: Path) -> None:
    """They are checked beside the first tokens, or before, or not at all, as asked."""
    data = bytearray((sealed / "weights.bin").read_bytes())
    data[-1] ^= 0x10
    (sealed / "weights.bin").write_bytes(data)
    session = arkinfer.load(sealed).session()
    for _ in range(2):
        with pytest.raises(DamagedBundleError, match=r"weights\.bin.*checksum"):
            session.append([1, 5, 7])
        assert session.length == 0
    with pytest.raises(DamagedBundleError, match=r"weights\.bin"):
        list(arkinfer.load(sealed).generate([1, 5, 7], max_tokens=4))
    with pytest.raises(DamagedBundleError, match=r"weights\.bin"):
        NativeModel(sealed, "before")
    assert NativeSession(NativeModel(sealed, "skip"), SessionOptions()).append([1]).shape == (
        1,
        320,
    )


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("how", ["gone", "short", "long", "folder"])
def test_files_of_another_size(sealed: Path, name: str, how: str) -> None:
    data = (sealed / name).read_bytes()
    (sealed / name).unlink()
    if how == "short":
        (sealed / name).write_bytes(data[:-1])
    elif how == "long":
        (sealed / name).write_bytes(data + b"x")
    elif how == "folder":
        (sealed / name).mkdir()
    with pytest.raises((DamagedBundleError, InvalidBundleError)):
        arkinfer.load(sealed)


def _edited(sealed: Path, **changes: Any) -> None:
    data = json.loads((sealed / "manifest.json").read_text())
    reseal_manifest(sealed, json.dumps(data | changes))


@pytest.mark.parametrize(
    "changes",
    [
        {"format_version": 2},
        {"format_version": 0},
        {"format_version": "1"},
        {"format_version": None},
        {"format_version": True},
        {"runtime_abi": {"minimum": 2, "maximum": 3}},
        {"runtime_abi": {"minimum": 0, "maximum": 0}},
    ],
)
def test_other_versions(sealed: Path, changes: dict[str, Any]) -> None:
    _edited(sealed, **changes)
    with pytest.raises(BundleVersionError, match="update arkinfer"):
        Bundle.open(sealed)


def test_a_newer_version_without_its_digest(sealed: Path) -> None:
    # A later format may seal in another way: the version is what the user must hear of.
    text = (sealed / "manifest.json").read_text()
    (sealed / "manifest.json").write_text(
        text.replace('"format_version": 1', '"format_version": 2')
    )
    with pytest.raises(BundleVersionError, match="format version 2"):
        Bundle.open(sealed)


@pytest.mark.parametrize(
    "kv", ["fp8", "", "INT8", "int8 ", "x" * 9999, 8, True, [], {"kv": "int8"}]
)
def test_kv_types_that_are_none(sealed: Path, kv: Any) -> None:
    with pytest.raises(InvalidOptionError, match="kv is .{1,90}fp16 or fp32 or int8 or int4"):
        arkinfer.load(sealed, kv=kv)
    with pytest.raises(InvalidOptionError, match="kv is"):
        NativeSession(NativeModel(sealed), SessionOptions(kv=kv))
    _edited(sealed, kv=kv)
    with pytest.raises(InvalidBundleError, match="kv"):
        Bundle.open(sealed)
    with pytest.raises(InvalidBundleError, match="kv"):
        NativeModel(sealed)


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "/etc/passwd", "a/b", "a\\b", "c:x", "", ".", "..", "a\0b"]
)
def test_file_names_that_leave_the_folder(sealed: Path, name: str) -> None:
    data = json.loads((sealed / "manifest.json").read_text())
    data["files"][name] = {"bytes": 1, "sha256": "0" * 64, "crc32c": "0x00000000"}
    reseal_manifest(sealed, json.dumps(data))
    with pytest.raises(InvalidBundleError, match="plain name"):
        Bundle.open(sealed)


@pytest.mark.parametrize(
    "text", ["", "[]", "null", "{", '{"format_version": NaN}', "[" * 100_000, '"\ud800"', "{}"]
)
def test_manifests_that_are_none(sealed: Path, text: str) -> None:
    raw = text.encode("utf-8", "surrogatepass")
    (sealed / "manifest.json").write_bytes(raw)
    with pytest.raises((DamagedBundleError, InvalidBundleError, BundleVersionError)):
        Bundle.open(sealed)
    if "\ud800" not in text:
        reseal_manifest(sealed, text)
        with pytest.raises((InvalidBundleError, BundleVersionError)):
            Bundle.open(sealed)


GOOD = json.loads(MANIFEST.to_json())


@settings(deadline=None, max_examples=400, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(paths(GOOD)), JUNK, st.booleans())
def test_any_value_anywhere_is_read_or_refused(
    path: tuple[Any, ...], junk: Any, remove: bool
) -> None:
    try:
        manifests.parse(json.dumps(changed(GOOD, path, junk, remove)))
    except ArkInferError as error:
        assert error.found


def plan_edits() -> dict[str, Callable[[dict[str, Any]], None]]:
    """Plans that would read or write where they must not."""

    def buffer(key: str, value: Any) -> Callable[[dict[str, Any]], None]:
        return lambda plan: plan["buffers"][3].update({key: value})

    def weight(key: str, value: Any) -> Callable[[dict[str, Any]], None]:
        return lambda plan: plan["weights"][1].update({key: value})

    def step(kernel: str, part: str, key: str, value: Any) -> Callable[[dict[str, Any]], None]:
        def edit(plan: dict[str, Any]) -> None:
            found = next(s for s in plan["body"] if s["kernel"] == kernel)
            found[part][key] = value

        return edit

    return {
        "buffer behind the arena": lambda p: p["buffers"][3].update({"offset": p["arena_bytes"]}),
        "buffer far away": buffer("offset", 1 << 62),
        "buffer before the arena": buffer("offset", -64),
        "buffer between words": buffer("offset", 4),
        "buffer too wide": buffer("columns", 1 << 30),
        "buffer without columns": buffer("columns", 0),
        "buffer of no type": buffer("dtype", "f64"),
        "weight behind the file": weight("offset", 1 << 40),
        "weight too tall": weight("shape", [1 << 30, 256]),
        "weight with few bytes": weight("bytes", 1),
        "unknown buffer": step("matmul", "operands", "x", {"buffer": "nothing"}),
        "unknown weight": step("matmul", "operands", "codes", {"weight": "nothing"}),
        "unknown cache": step("cache_append", "operands", "key", {"cache": "nothing"}),
        "view too wide": step(
            "rope", "operands", "x", {"buffer": "layers.0.qkv", "column": 280, "columns": 16}
        ),  # fmt: skip
        "weight as output": step("matmul", "operands", "y", {"weight": "model.norm.weight"}),
        "unknown kernel": lambda p: p["body"][2].update({"kernel": "format_disk"}),
        "unknown attribute": step("matmul", "attributes", "colour", 3),
        "huge block": step("select_blocks", "attributes", "block_size", 1e18),
        "negative topk": step("select_blocks", "attributes", "topk", -5),
        "heads that do not divide": step("select_blocks", "attributes", "heads", 31),
        "wrong head size": step("rope", "attributes", "head_dim", 7),
        "cache with other heads": lambda p: p["caches"][0].update({"kv_heads": 64}),
        "cache with a huge head": lambda p: p["caches"][0].update({"head_dim": 65536}),
        "window of nothing": lambda p: p["caches"][2].update({"window": 0}),
        "stride of nothing": lambda p: p["caches"][2].update({"stride": 0}),
        "another chunk": lambda p: p.update({"chunk": 65536}),
        "no logits": lambda p: p.update({"logits": "token_ids"}),
        "another version": lambda p: p.update({"version": 2}),
        "no steps": lambda p: p.pop("body"),
        "steps as text": lambda p: p.update({"body": "steps"}),
    }


@pytest.mark.parametrize("name", plan_edits())
def test_a_plan_that_leaves_its_bounds(sealed: Path, name: str) -> None:
    plan = json.loads((sealed / "plan.json").read_text())
    plan_edits()[name](plan)
    reseal(sealed, {"plan.json": json.dumps(plan).encode()})
    Bundle.open(sealed).check()  # every digest is right: only the plan is wrong
    with pytest.raises(InvalidBundleError):
        arkinfer.load(sealed)


def _change_ternary(plan: dict[str, Any], part: str, **changes: Any) -> None:
    found = next(w for w in plan["weights"] if w["name"].endswith(f"down_proj.weight.{part}"))
    found.update(changes)


TERNARY_EDITS: dict[str, Callable[[dict[str, Any]], None]] = {
    "one chunk too wide": lambda p: _change_ternary(p, "codes", shape=[256, 528]),
    "part of a chunk": lambda p: _change_ternary(p, "codes", shape=[256, 504]),
    "a panel too tall": lambda p: _change_ternary(p, "codes", shape=[272, 512]),
    "rows beyond all bytes": lambda p: _change_ternary(p, "codes", shape=[1 << 30, 512]),
    "four-bit codes": lambda p: _change_ternary(p, "codes", dtype="u4"),
    "few bytes": lambda p: _change_ternary(p, "codes", bytes=64),
    "groups of half a chunk": lambda p: _change_ternary(p, "scales", shape=[256, 64]),
    "groups that leave inputs over": lambda p: _change_ternary(p, "scales", shape=[256, 3]),
    "no groups": lambda p: _change_ternary(p, "scales", shape=[256, 0]),
    "integer scales": lambda p: _change_ternary(p, "scales", dtype="i32"),
    "ternary scales": lambda p: _change_ternary(p, "scales", dtype="u2"),
}


@pytest.mark.parametrize("name", TERNARY_EDITS)
def test_ternary_weights_that_are_none(
    tiny_bundle: Callable[..., Bundle], tmp_path: Path, name: str
) -> None:
    bundle = tiny_bundle("minicpm4-8b", compile={"quant": "ternary"}, dtype="bf16")
    copied = Path(shutil.copytree(bundle.path, tmp_path / "copy.ark"))
    assert arkinfer.load(copied).session().append([1, 5, 7]).shape == (1, 320)
    plan = json.loads((copied / "plan.json").read_text())
    TERNARY_EDITS[name](plan)
    reseal(copied, {"plan.json": json.dumps(plan).encode()})
    with pytest.raises(InvalidBundleError):
        arkinfer.load(copied)


def test_weights_shorter_than_the_plan_says(sealed: Path) -> None:
    data = (sealed / "weights.bin").read_bytes()
    reseal(sealed, {"weights.bin": data[: len(data) // 2 // 64 * 64]})
    with pytest.raises(InvalidBundleError):
        arkinfer.load(sealed)


def test_a_vocabulary_whose_offsets_lie(sealed: Path) -> None:
    data = bytearray((sealed / "vocabulary.bin").read_bytes())
    data[8:12] = b"\xff\xff\xff\x7f"
    reseal(sealed, {"vocabulary.bin": bytes(data)})
    with pytest.raises((InvalidBundleError, DamagedBundleError)):
        arkinfer.load(sealed)
