"""An OpenCL library whose only device is too old."""

from __future__ import annotations

import subprocess
from pathlib import Path

SOURCE = Path(__file__).with_suffix(".c")


def build(folder: Path) -> None:
    """Put it into a folder, under the name by which the runtime looks for a driver."""
    output = folder / "libOpenCL.so.1"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", output, SOURCE], check=True)
