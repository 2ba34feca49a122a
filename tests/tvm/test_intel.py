"""The OpenCL tests once more, on Intel's runtime for CPUs: another compiler, another driver."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.platform
ROOT = Path(__file__).resolve().parents[2]
DRIVER = Path(sys.prefix) / "lib" / "libintelocl.so"


# What is kept differs by driver; what becomes of wrong kernels does not.
@pytest.mark.parametrize(
    ("name", "chosen"),
    [
        ("test_kernels.py", "not llvm and not webgpu and not metal and not cuda"),
        ("test_opencl_models.py", ""),
        ("test_opencl_cache.py", "kept"),
    ],
)
def test_intel_opencl(name: str, chosen: str, tmp_path: Path) -> None:
    if importlib.util.find_spec("tvm") is None or not DRIVER.exists():
        pytest.skip("needs TVM and the PyPI package intel-opencl-rt (x86-64)")
    # The loader finds the driver through a folder of its own; the driver its parts on this path.
    (tmp_path / "intel.icd").write_text(str(DRIVER))
    environment = {
        "ARK_TEST_OPENCL": "Intel",
        "OCL_ICD_VENDORS": str(tmp_path),
        "LD_LIBRARY_PATH": str(DRIVER.parent),
    }
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            f"tests/tvm/{name}",
            "-k",
            chosen,
        ]
        + ["-q", "-p", "no:cacheprovider"],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-1000:]
    assert " passed" in done.stdout and " skipped" not in done.stdout
