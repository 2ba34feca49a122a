"""Models whose kernels TVM cross-compiled for aarch64, run there by qemu."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import arkinfer
from tests.support.native_build import build
from tests.support.tiny_models import SMALL_SPARSE

pytestmark = pytest.mark.platform
if importlib.util.find_spec("tvm") is None:
    pytest.skip("needs TVM: pip install 'arkinfer[tvm]'", allow_module_level=True)
for needed in ("aarch64-linux-gnu-g++", "qemu-aarch64"):
    if shutil.which(needed) is None:
        pytest.skip(f"needs the system package with {needed}", allow_module_level=True)

# ark_kernels of the C ABI.
COMPILED = "2"


def emulated(
    cpu: str, bundle: Path, first: int, ids: list[int]
) -> subprocess.CompletedProcess[bytes]:
    runner = build("aarch64", target="bundle_runner") / "bundle_runner"
    command = ["qemu-aarch64", "-cpu", cpu, "-L", "/usr/aarch64-linux-gnu", runner, bundle]
    return subprocess.run(
        [*command, COMPILED, "2", str(first), *map(str, ids)], capture_output=True, check=False
    )


@pytest.mark.parametrize(
    ("kind", "isa", "cpu", "kv", "quant", "tolerance"),
    [
        ("minicpm4.1-8b", "neon", "cortex-a57", "fp32", "w4g32", 5e-5),
        ("minicpm4-0.5b", "dotprod", "cortex-a76", "fp16", "w8g32", 5e-3),
    ],
)
def test_tiny_models(
    kind: str,
    isa: str,
    cpu: str,
    kv: str,
    quant: str,
    tolerance: float,
    tiny_checkpoint: Callable[..., Path],
    tmp_path: Path,
) -> None:
    """Prefill in chunks and decoding, against this machine's own kernels."""
    source = tiny_checkpoint(kind, sparse=SMALL_SPARSE if kind.endswith("8b") else None)
    bundle = arkinfer.compile(
        source,
        target="arm64",
        kernels=f"tvm:{isa}",
        context=128,
        chunk=32,
        kv=kv,
        quant=quant,
        output=tmp_path / "a.ark",
    ).path
    ids = [int(i) for i in np.random.default_rng(3).integers(3, 300, 104)]
    session = arkinfer.load(bundle, activations="fp32", kernels="builtin").session()
    rows = [session.append(ids[:96], all_logits=True), *(session.append([i]) for i in ids[96:])]
    expected = np.concatenate(rows)
    done = emulated(cpu, bundle, 96, ids)
    assert done.returncode == 0, done.stderr.decode()
    found = np.frombuffer(done.stdout, np.float32).reshape(expected.shape)
    assert np.abs(found - expected).max() < tolerance * np.abs(expected).max()
    top = np.sort(expected, axis=1)
    near = top[:, -1] - top[:, -2] < tolerance * np.abs(expected).max()
    assert (near | (found.argmax(axis=1) == expected.argmax(axis=1))).all()
    if isa == "dotprod":
        refused = emulated("cortex-a57", bundle, 1, ids[:1])
        assert refused.returncode == 1
        assert b"kernels.so holds code for dotprod" in refused.stderr
