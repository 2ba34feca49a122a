"""Every place that states this package's version, read from the source."""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def _first(path: str, pattern: str) -> str:
    found = re.search(pattern, (ROOT / path).read_text(encoding="utf-8"), re.MULTILINE)
    return found.group(1) if found else f"nothing that matches {pattern!r}"


def package() -> dict[str, str]:
    """The package's version, by the place that states it."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        project = tomllib.load(file)["project"]["version"]
    return {
        "pyproject.toml": project,
        "arkinfer/__init__.py": _first("arkinfer/__init__.py", r'^__version__ = "([^"]+)"'),
        "native/src/c_api.cc": _first("native/src/c_api.cc", r'^#define ARK_VERSION "([^"]+)"'),
        "CHANGELOG.md": _first("CHANGELOG.md", r"^## (\d\S*)"),
    }


def abi() -> dict[str, str]:
    """The version of the C ABI, by the place that states it."""
    return {
        "native/include/arkinfer.h": _first(
            "native/include/arkinfer.h", r"^#define ARK_ABI_VERSION (\d+)"
        ),
        "arkinfer/runtime/abi.py": _first("arkinfer/runtime/abi.py", r"^ABI_VERSION = (\d+)"),
    }


if __name__ == "__main__":
    for what, stated in (("package", package()), ("ABI", abi())):
        if len(set(stated.values())) != 1:
            sys.exit(f"error: the {what} version differs: {stated}")
