"""Build native/ in a folder of its own for tests: one folder per preset, reused between runs.

The folder is ``$ARK_BUILD_ROOT`` or ``<repository>/build``.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

# Enough kernel sets to reach every line on any host, and few enough to compile in time.
FEW_SETS = "-DARK_ISAS=scalar;avx2;neon"

# What cmake is given for each preset, besides the tests and warnings as errors.
PRESETS: dict[str, tuple[str, ...]] = {
    "release": (),
    "address": ("-DARK_SANITIZE=address", "-DCMAKE_CXX_FLAGS_RELEASE=-O1 -g1", FEW_SETS),
    "thread": ("-DARK_SANITIZE=thread", "-DCMAKE_CXX_FLAGS_RELEASE=-O1 -g1", FEW_SETS),
    "simde": ("-DARK_SIMDE=ON", "-DARK_ISAS=scalar;avxvnni;avx512;avx512vnni;amx"),
    "aarch64": (f"-DCMAKE_TOOLCHAIN_FILE={ROOT / 'native' / 'cmake' / 'aarch64-linux-gnu.cmake'}",),
}


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        tail = "\n".join((done.stdout + done.stderr).splitlines()[-60:])
        raise AssertionError(f"{' '.join(command)} failed:\n{tail}")


def build(preset: str, *options: str, target: str | None = None) -> Path:
    """Configure and build ``native/``; gives the build folder.

    It then holds ``native_tests``, ``fuzz_bundle``, ``libarkinfer.so`` and the tools. ``options``
    go to cmake besides the preset's own; ``target`` builds that target alone. A lock on the folder
    lets several test processes ask for the same preset at once.
    """
    root = Path(os.environ.get("ARK_BUILD_ROOT", ROOT / "build"))
    folder = root / f"native-{preset}"
    folder.mkdir(parents=True, exist_ok=True)
    generator = ["-G", "Ninja"] if shutil.which("ninja") else []
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        command = ["cmake", "-S", str(ROOT / "native"), "-B", str(folder), *generator]
        command += ["-DARK_TESTS=ON", "-DARK_WERROR=ON", *PRESETS[preset], *options]
        stamp = folder / ".configured"
        if not stamp.exists() or stamp.read_text() != "\n".join(command):
            _run(command)
            stamp.write_text("\n".join(command))
        _run(
            ["cmake", "--build", str(folder), "--parallel", str(os.cpu_count() or 1)]
            + (["--target", target] if target else [])
        )
    return folder
