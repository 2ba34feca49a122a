"""The native tests under address, undefined-behaviour and thread sanitizers."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.support.native_build import build

pytestmark = pytest.mark.platform

OPTIONS = {
    "ASAN_OPTIONS": "detect_leaks=1:abort_on_error=0:allocator_may_return_null=1",
    "UBSAN_OPTIONS": "print_stacktrace=1",
    "TSAN_OPTIONS": "halt_on_error=1",
}


def _run(*command: str | Path) -> str:
    done = subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        timeout=1800,
        check=False,
        env=os.environ | OPTIONS,
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]
    return done.stdout


@pytest.mark.parametrize("sanitizer", ["address", "thread"])
def test_native_tests_under(sanitizer: str) -> None:
    output = _run(build(sanitizer, target="native_tests") / "native_tests")
    assert output.splitlines()[-1].endswith(" 0 failed")


def test_mutated_bundles_under_the_address_sanitizer() -> None:
    folder = build("address", target="fuzz_bundle")
    assert "bundles loaded and ran" in _run(folder / "fuzz_bundle", "6000", "3")
