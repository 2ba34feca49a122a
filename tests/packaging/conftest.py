"""The wheel, the source distribution, and an environment with nothing but the wheel."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import native_build

ROOT = Path(__file__).resolve().parents[2]


def run(command: list[str | Path], **options: object) -> subprocess.CompletedProcess[str]:
    """Run a command and fail the test with its output when it fails."""
    done = subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, check=False, **options
    )
    if done.returncode:
        tail = (done.stdout + done.stderr)[-4000:]
        pytest.fail(f"{' '.join(map(str, command))} exited with {done.returncode}:\n{tail}")
    return done


@pytest.fixture(scope="session")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A source distribution of this checkout."""
    folder = tmp_path_factory.mktemp("sdist")
    code = f"from scikit_build_core.build import build_sdist; build_sdist({str(folder)!r})"
    run([sys.executable, "-c", code], cwd=ROOT, env=_environment())
    (built,) = folder.glob("*.tar.gz")
    return built


@pytest.fixture(scope="session")
def wheel(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built from the source distribution, which so proves to be complete.

    It holds few kernel sets: what a release holds is built and tested from the checkout.
    """
    folder = tmp_path_factory.mktemp("wheel")
    run(["tar", "-xzf", sdist, "-C", folder])
    (source,) = folder.iterdir()
    pip = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation"]
    few = {"CMAKE_ARGS": shlex.quote(native_build.FEW_SETS)}
    run([*pip, "-w", folder, source], env=_environment() | few)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="session")
def bare_python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment that holds the wheel without any extra."""
    folder = tmp_path_factory.mktemp("bare") / "venv"
    run([sys.executable, "-m", "venv", folder])
    python = folder / "bin" / "python"
    run([python, "-m", "pip", "install", "-q", "--disable-pip-version-check", wheel])
    return python


def _environment() -> dict[str, str]:
    """This process's environment, with cmake and ninja of its own environment found first."""
    scripts = str(Path(sys.executable).parent)
    return os.environ | {"PATH": scripts + os.pathsep + os.environ.get("PATH", "")}
