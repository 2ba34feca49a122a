"""Writing and reading bundles: whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from arkinfer.bundle import Bundle, BundleWriter
from arkinfer.errors import (
    InputNotFoundError,
    InvalidBundleError,
    OutputExistsError,
    StorageError,
)
from arkinfer.manifest import parse
from tests.support.manifests import MANIFEST


def write(path: Path, **files: bytes) -> Bundle:
    with BundleWriter(path) as writer:
        for name, data in (files or {"a.bin": b"abc" * 50000, "b.bin": b""}).items():
            with writer.open_file(name) as file:
                file.write(data)
        writer.finish(MANIFEST)
    return Bundle.open(path)


def leftovers(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_round_trip(tmp_path: Path) -> None:
    bundle = write(tmp_path / "x.ark")
    assert leftovers(tmp_path) == ["x.ark"]
    assert leftovers(bundle.path) == ["DIGEST", "a.bin", "b.bin", "manifest.json"]
    assert replace(bundle.manifest, files={}) == MANIFEST
    raw = (bundle.path / "manifest.json").read_bytes()
    assert bundle.digest == hashlib.sha256(raw).hexdigest()
    assert (bundle.path / "DIGEST").read_bytes() == bundle.digest.encode() + b"\n"
    entry = bundle.manifest.files["a.bin"]
    assert entry.bytes == 150000
    assert entry.sha256 == hashlib.sha256(b"abc" * 50000).hexdigest()
    bundle.check()


def test_manifest_survives_json_and_ignores_unknown_keys() -> None:
    data = json.loads(MANIFEST.to_json())
    data["from_the_future"] = {"a": 1}
    data["model"]["another"] = 2
    assert parse(json.dumps(data)) == MANIFEST


def test_align_pads_with_zeros(tmp_path: Path) -> None:
    with BundleWriter(tmp_path / "x.ark") as writer:
        with writer.open_file("a.bin") as file:
            file.write(b"ab")
            assert file.align(64) == 64
            assert file.align(64) == 64
            file.write(b"c")
        writer.finish(MANIFEST)
    assert (tmp_path / "x.ark/a.bin").read_bytes() == b"ab" + bytes(62) + b"c"


def test_files_written_by_path_are_digested(tmp_path: Path) -> None:
    with BundleWriter(tmp_path / "x.ark") as writer:
        (writer.folder / "model.onnx").write_bytes(b"graph")
        writer.finish(MANIFEST)
    bundle = Bundle.open(tmp_path / "x.ark")
    assert bundle.manifest.files["model.onnx"].bytes == 5
    bundle.check()


def test_without_finish_nothing_is_left(tmp_path: Path) -> None:
    with BundleWriter(tmp_path / "x.ark") as writer, writer.open_file("a.bin") as file:
        file.write(b"abc")
    assert leftovers(tmp_path) == []
    with pytest.raises(ZeroDivisionError), BundleWriter(tmp_path / "x.ark"):
        raise ZeroDivisionError
    assert leftovers(tmp_path) == []


def test_an_old_bundle_is_replaced_only_by_a_whole_one(tmp_path: Path) -> None:
    write(tmp_path / "x.ark", **{"a.bin": b"old"})
    with BundleWriter(tmp_path / "x.ark") as writer, writer.open_file("a.bin") as file:
        file.write(b"new")
    assert (tmp_path / "x.ark/a.bin").read_bytes() == b"old"
    write(tmp_path / "x.ark", **{"a.bin": b"new"})
    assert (tmp_path / "x.ark/a.bin").read_bytes() == b"new"
    assert leftovers(tmp_path) == ["x.ark"]


def test_what_is_not_a_bundle_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home/thesis.tex").write_text("years")
    (tmp_path / "file").write_text("x")
    for name in ("home", "file"):
        with pytest.raises(OutputExistsError, match="not a bundle"), BundleWriter(tmp_path / name):
            pass
    assert leftovers(tmp_path) == ["file", "home"]


@pytest.mark.parametrize("name", ["../a", "a/b", "a\\b", "", ".hidden", "DIGEST", "manifest.json"])
def test_file_names_stay_inside(tmp_path: Path, name: str) -> None:
    with BundleWriter(tmp_path / "x.ark") as writer, pytest.raises(ValueError, match="file name"):
        writer.open_file(name)


def test_no_such_bundle_and_not_a_bundle(tmp_path: Path) -> None:
    with pytest.raises(InputNotFoundError):
        Bundle.open(tmp_path / "none.ark")
    with pytest.raises(InvalidBundleError, match="not a bundle"):
        Bundle.open(tmp_path)


@pytest.mark.parametrize("after", [0, 1, 2])
def test_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    real_open, count = open, 0

    class Full:
        """A file whose disk is full."""

        def __init__(self, file: Any) -> None:
            self._file = file

        def write(self, data: Any) -> int:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        def close(self) -> None:
            self._file.close()

    def opens(path: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        nonlocal count
        file = real_open(path, mode, *args, **kwargs)
        if str(path).endswith(".bin"):
            count += 1
            if count > after:
                return Full(file)
        return file

    monkeypatch.setattr("builtins.open", opens)
    files = {"a.bin": b"a", "b.bin": b"b"}
    if after == len(files):
        write(tmp_path / "x.ark", **files)
        return
    with pytest.raises(StorageError, match="No space left"):
        write(tmp_path / "x.ark", **files)
    assert leftovers(tmp_path) == []


def test_full_disk_inside_a_library(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="No space left"), BundleWriter(tmp_path / "x.ark"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert leftovers(tmp_path) == []


def test_full_device(tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    with pytest.raises(StorageError, match="No space left"), BundleWriter(tmp_path / "x.ark") as w:
        (w.folder / "a.bin").symlink_to("/dev/full")
        with w.open_file("a.bin") as file:
            file.write(b"x" * 100)
    assert leftovers(tmp_path) == []


def test_unwritable_place(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(StorageError, match="choose another folder"):
        write(tmp_path / "file" / "x.ark")


KILLED = """
import sys, time
from arkinfer.bundle import BundleWriter
with BundleWriter(sys.argv[1]) as writer, writer.open_file("a.bin") as file:
    file.write(b"x" * 1000)
    print("ready", flush=True)
    time.sleep(600)
"""


def _start(path: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.skipif(os.name != "posix", reason="needs SIGKILL")
def test_killed_in_the_middle(tmp_path: Path) -> None:
    process = _start(tmp_path / "x.ark")
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()  # type: ignore[union-attr]
    assert not (tmp_path / "x.ark").exists()
    assert len(leftovers(tmp_path)) == 1
    write(tmp_path / "x.ark")
    assert leftovers(tmp_path) == ["x.ark"]


@pytest.mark.skipif(os.name != "posix", reason="needs flock")
def test_a_living_compile_is_left_alone(tmp_path: Path) -> None:
    process = _start(tmp_path / "x.ark")
    try:
        write(tmp_path / "x.ark")
        assert len(leftovers(tmp_path)) == 2
    finally:
        process.kill()
        process.wait()
        process.stdout.close()  # type: ignore[union-attr]


def test_killed_between_the_two_renames(tmp_path: Path) -> None:
    write(tmp_path / "x.ark", **{"a.bin": b"old"})
    os.rename(tmp_path / "x.ark", tmp_path / ".x.ark.1-2.replaced")
    with BundleWriter(tmp_path / "x.ark"):
        assert (tmp_path / "x.ark/a.bin").read_bytes() == b"old"
    assert leftovers(tmp_path) == ["x.ark"]
    shutil.copytree(tmp_path / "x.ark", tmp_path / ".x.ark.1-2.replaced")
    write(tmp_path / "x.ark", **{"a.bin": b"new"})
    assert leftovers(tmp_path) == ["x.ark"]


def test_a_folder_without_lock_is_kept_for_a_minute(tmp_path: Path) -> None:
    young, old = tmp_path / ".x.ark.1-2.partial", tmp_path / ".x.ark.1-3.partial"
    young.mkdir()
    old.mkdir()
    os.utime(old, (time.time() - 120, time.time() - 120))
    write(tmp_path / "x.ark")
    assert leftovers(tmp_path) == [".x.ark.1-2.partial", "x.ark"]
