"""Finding and loading the native library, and turning its statuses into named errors."""

from __future__ import annotations

import ctypes
import functools
import os
import sys
from ctypes import c_int32
from pathlib import Path

import numpy as np

from arkinfer import errors
from arkinfer.runtime import abi

ENVIRONMENT = "ARKINFER_LIBRARY"

_ERRORS: dict[int, type[errors.ArkInferError]] = {
    1: errors.InputNotFoundError,
    2: errors.DamagedBundleError,
    3: errors.InvalidBundleError,
    4: errors.BundleVersionError,
    5: errors.MemoryBudgetError,
    6: errors.ContextOverflowError,
    7: errors.InvalidOptionError,
    8: errors.CancelledError,
    9: errors.DeviceError,
}


def file_name() -> str:
    """The library's file name on this system."""
    if sys.platform == "win32":
        return "arkinfer.dll"
    return "libarkinfer.dylib" if sys.platform == "darwin" else "libarkinfer.so"


def find() -> Path:
    """Where the library is: ``$ARKINFER_LIBRARY``, or the package's ``lib`` folder.

    An editable install keeps compiled files beside the other installed
    packages instead of in the source tree, so every folder that the import
    system searches is looked at.

    Raises:
        NativeLibraryError: it is nowhere.
    """
    named = os.environ.get(ENVIRONMENT)
    if named:
        if Path(named).is_file():
            return Path(named)
        raise errors.NativeLibraryError(f"{ENVIRONMENT} names {named}, which is not a file")
    relative = Path("arkinfer") / "lib" / file_name()
    package = Path(__file__).resolve().parent.parent
    for folder in [package.parent, *map(Path, sys.path)]:
        if (folder / relative).is_file():
            return folder / relative
    raise errors.NativeLibraryError(
        f"the native library {file_name()} is not in {package / 'lib'}",
        remedy=f"build it with 'make native', reinstall arkinfer, or set {ENVIRONMENT}",
    )


@functools.cache
def _open(path: Path) -> ctypes.CDLL:
    try:
        library = ctypes.CDLL(str(path))
        version_function = library.ark_abi_version
    except (OSError, AttributeError) as error:
        raise errors.NativeLibraryError(f"cannot load {path}: {error}") from error
    version_function.restype = c_int32
    version_function.argtypes = []
    version = version_function()
    if version != abi.ABI_VERSION:
        raise errors.NativeLibraryError(
            f"{path} has ABI version {version}",
            f"version {abi.ABI_VERSION}",
            "rebuild it with 'make native' or reinstall arkinfer",
        )
    try:
        abi.bind(library)
    except AttributeError as error:
        raise errors.NativeLibraryError(f"{path} is incomplete: {error}") from error
    return library


def load() -> ctypes.CDLL:
    """The native library, bound and checked; loaded once.

    Raises:
        NativeLibraryError: missing, not loadable, or of another ABI version.
    """
    return _open(find())


def check(status: int) -> None:
    """Raise the error that belongs to a status other than success.

    The text is the library's own. A status that says that the library itself is wrong
    (internal) becomes :class:`NativeLibraryError`.
    """
    if status == abi.OK:
        return
    library = load()
    text = (library.ark_last_error() or b"").decode("utf-8", "replace").strip()
    name = (library.ark_status_name(status) or b"").decode("ascii", "replace")
    raise _ERRORS.get(status, errors.NativeLibraryError)(text or name or f"status {status}")


def checksum(data: bytes | bytearray | memoryview | np.ndarray) -> int:
    """The bundle format's checksum of contiguous bytes (docs/bundle.md)."""
    array = np.frombuffer(data, dtype=np.uint8)
    return int(load().ark_checksum(array.ctypes.data, array.size))


def cpu_name() -> str:
    """What this CPU calls itself; empty where it has no name."""
    name: bytes = load().ark_cpu()
    return name.decode("utf-8", "replace")


def instruction_sets() -> list[str]:
    """Kernel sets of this build that this CPU runs, best first."""
    names: bytes = load().ark_isas()
    return names.decode("ascii").split()
