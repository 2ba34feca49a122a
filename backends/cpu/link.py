"""From an object file to a shared library, with the C compiler of the system."""

from __future__ import annotations

import os
import platform
import shlex
import shutil
import subprocess
from pathlib import Path

from arkinfer.errors import LinkerError

ENVIRONMENT = "ARKINFER_CC"
_NATIVE = ("cc", "gcc", "clang", "c++")
_CROSS = ("{arch}-linux-gnu-gcc", "{arch}-linux-gnu-g++", "clang --target={arch}-linux-gnu")
# Nothing may stay undefined but what the C library and its mathematics have.
_FLAGS = ("-shared", "-Wl,-z,noexecstack", "-Wl,-z,defs", "-Wl,-z,relro", "-Wl,-z,now")


def shared_library(code: Path, output: Path, arch: str) -> None:
    """Link an object.

    Args:
        code: the object file.
        output: the library to write.
        arch: ``"x86_64"`` or ``"aarch64"``.

    Raises:
        LinkerError: there is no C compiler for that architecture, or it fails.
    """
    command = [*_compiler(arch), *_FLAGS, "-o", str(output), str(code), "-lm"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        raise LinkerError(f"{command[0]} cannot be run ({error.strerror})") from None
    if done.returncode != 0:
        raise LinkerError(f"{command[0]} cannot link kernels for {arch}: {done.stderr[-600:]}")


def _compiler(arch: str) -> list[str]:
    named = os.environ.get(ENVIRONMENT)
    if named:
        return shlex.split(named)
    here = platform.machine().lower() in (arch, {"x86_64": "amd64", "aarch64": "arm64"}[arch])
    known = _NATIVE if here else tuple(name.format(arch=arch) for name in _CROSS)
    for command in known:
        if shutil.which(command.split()[0]):
            return command.split()
    package = "gcc" if here else f"gcc-{arch.replace('_', '-')}-linux-gnu"
    raise LinkerError(
        f"no C compiler that links for {arch}",
        " or ".join(known),
        f"install one (Debian: {package}), or name one in {ENVIRONMENT}",
    )
