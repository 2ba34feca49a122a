"""The runtime's own tests, in C++: JSON, plans, sessions, sampling, generation, the C ABI."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.support.native_build import ROOT, build


@pytest.fixture(scope="session")
def release() -> Path:
    """The folder of the release build with tests."""
    return build("release")


def _run(*command: str | Path) -> str:
    done = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    return done.stdout


def test_native_tests_pass(release: Path) -> None:
    lines = _run(release / "native_tests").splitlines()
    assert lines[-1].endswith(" 0 failed")
    # A test file that was left out of the build would otherwise go unnoticed.
    names = " ".join(lines)
    for group in ("json", "sha256", "crc32c", "thread_pool", "sampler", "text", "plan", "manifest"):
        assert f"ok   {group}_" in names
    for group in ("model", "vocabulary", "session", "generation", "abi", "real_kernels"):
        assert f"ok   {group}_" in names


def test_native_tests_can_fail(release: Path) -> None:
    done = subprocess.run([release / "native_tests", "no test has this name"], check=False)
    assert done.returncode == 1


@pytest.mark.parametrize("seed", [1, 2])
def test_mutated_bundles_are_refused_by_name_or_run(release: Path, seed: int) -> None:
    assert "bundles loaded and ran" in _run(release / "fuzz_bundle", "4000", str(seed))


def test_library_exports_only_its_abi(release: Path) -> None:
    """Every exported function starts with ``ark_``, so that none clashes with an app's."""
    listing = _run("nm", "-D", "--defined-only", release / "libarkinfer.so").splitlines()
    names = {line.split()[-1].split("@")[0] for line in listing}
    assert {name for name in names if not name.startswith("ark_")} == set()
    header = (ROOT / "native" / "include" / "arkinfer.h").read_text()
    assert names == set(re.findall(r"^ARK_API .*?(ark_\w+)\(", header, re.MULTILINE))
