"""Print what this package and its named extras require, one requirement per line.

``pip install .[lint]`` would build the native library, which checks of the sources do not need.
"""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path


def requirements(extras: list[str]) -> list[str]:
    """The requirements of pyproject.toml: the package's own, then those of each extra."""
    with (Path(__file__).resolve().parents[2] / "pyproject.toml").open("rb") as file:
        project = tomllib.load(file)["project"]
    found: list[str] = list(project["dependencies"])
    for extra in extras:
        found += project["optional-dependencies"][extra]
    return found


if __name__ == "__main__":
    print("\n".join(requirements(sys.argv[1:])))
