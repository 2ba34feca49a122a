"""What is in the wheel and in the source distribution: every file once."""

from __future__ import annotations

import re
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LINKED = ("backends", "converters", "devices", "kernels")


@pytest.fixture(scope="module")
def wheel_names(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as archive:
        return archive.namelist()


@pytest.fixture(scope="module")
def sdist_names(sdist: Path) -> list[str]:
    with tarfile.open(sdist) as archive:
        return [name.split("/", 1)[1] for name in archive.getnames() if "/" in name]


def sources(folder: Path) -> set[str]:
    """Files below a folder that belong into a package, as paths relative to it."""
    return {
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".pyc"
    }


def test_wheel_holds_only_the_package(wheel_names: list[str]) -> None:
    outside = [name for name in wheel_names if not re.match(r"arkinfer(-[^/]+\.dist-info)?/", name)]
    assert outside == []
    assert len(wheel_names) == len(set(wheel_names))


@pytest.mark.parametrize("folder", LINKED)
def test_wheel_holds_every_file_of_a_linked_folder(wheel_names: list[str], folder: str) -> None:
    expected = {f"arkinfer/{folder}/{name}" for name in sources(ROOT / folder)}
    assert {name for name in wheel_names if name.startswith(f"arkinfer/{folder}/")} == expected


def test_wheel_holds_the_native_library_and_type_marker(wheel_names: list[str]) -> None:
    libraries = [name for name in wheel_names if name.startswith("arkinfer/lib/")]
    assert len(libraries) == 1
    assert "arkinfer/py.typed" in wheel_names


def test_sdist_holds_linked_folders_once(sdist_names: list[str]) -> None:
    for folder in LINKED:
        assert not [name for name in sdist_names if name.startswith(f"{folder}/")]
        packed = {name for name in sdist_names if name.startswith(f"arkinfer/{folder}/")}
        assert {f"arkinfer/{folder}/{name}" for name in sources(ROOT / folder)} <= packed
