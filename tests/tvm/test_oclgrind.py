"""A whole tiny model on Oclgrind, which checks every access to memory and every race of lanes."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import arkinfer
from tests.support.tiny_models import SMALL_SPARSE

pytestmark = pytest.mark.platform
DRIVER = Path("/usr/lib/oclgrind/liboclgrind-rt-icd.so")
# Opening a session runs the self-test: every kernel, for one, few and many tokens.
RUN = """
import sys, arkinfer
session = arkinfer.load(sys.argv[1], on="device").session()
for tokens in ([5, 6, 7, 8, 9, 10, 11, 12, 13, 14], [5, 6], [7]):
    logits = session.append(tokens)
print("ran", abs(logits).max() < 1e6)
"""


def test_no_kernel_leaves_its_memory(tiny_checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    if importlib.util.find_spec("tvm") is None or not DRIVER.exists():
        pytest.skip("needs TVM and Oclgrind (Debian's oclgrind)")
    source = tiny_checkpoint("minicpm4.1-8b", sparse=SMALL_SPARSE)
    bundle = arkinfer.compile(source, "opencl", "w4g32", 128, tmp_path / "a.ark", chunk=10).path
    (tmp_path / "oclgrind.icd").write_text(str(DRIVER))
    environment = {
        "OCL_ICD_VENDORS": str(tmp_path),
        "ARK_OPENCL_DEVICE": "Oclgrind",
        "XDG_CACHE_HOME": str(tmp_path),
        "OCLGRIND_CHECK_API": "1",
        "OCLGRIND_DATA_RACES": "1",
    }
    done = subprocess.run(
        [sys.executable, "-c", RUN, str(bundle)],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout == "ran True\n" and done.stderr == ""
