"""The four links, and one import path for every module."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LINKED = ("backends", "converters", "devices", "kernels")

IMPORT_EVERYTHING = """
import importlib, pkgutil, sys
import arkinfer
for module in pkgutil.walk_packages(arkinfer.__path__, "arkinfer."):
    if not module.name.endswith("__main__"):
        try:
            importlib.import_module(module.name)
        except ModuleNotFoundError as missing:
            # Modules that describe kernels to TVM, or run WebGPU, are of no use without it.
            if missing.name not in ("tvm", "wgpu"):
                raise
wrong = {"backends", "converters", "devices", "kernels"} & {n.split(".")[0] for n in sys.modules}
assert not wrong, wrong
assert len([name for name in sys.modules if name.startswith("arkinfer.")]) > 40
"""


@pytest.mark.parametrize("folder", LINKED)
def test_link_leads_to_the_top_level_folder(folder: str) -> None:
    link = ROOT / "arkinfer" / folder
    assert link.is_symlink()
    assert os.readlink(link) == f"../{folder}"
    assert (link / "__init__.py").samefile(ROOT / folder / "__init__.py")


def test_no_module_is_imported_under_a_second_name() -> None:
    done = subprocess.run(
        [sys.executable, "-c", IMPORT_EVERYTHING],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("package", LINKED)
def test_linked_packages_are_not_imported_by_their_own_name(package: str) -> None:
    """ruff's banned-api says so too; this holds where ruff is not run."""
    for folder in ("arkinfer", "benchmarks", "tests", *LINKED):
        for path in (ROOT / folder).rglob("*.py"):
            for line in path.read_text(encoding="utf-8").splitlines():
                words = line.split()
                if words[:1] in (["import"], ["from"]) and len(words) > 1:
                    assert words[1].split(".")[0] != package, f"{path}: {line}"
