"""Model files that benchmarks make once and keep, and dropping them from the page cache."""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import mmap
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def default_cache() -> Path:
    """``$ARK_BENCH_CACHE``, or ``build/bench`` in the repository."""
    return Path(os.environ.get("ARK_BENCH_CACHE") or ROOT / "build" / "bench")


def make_once(path: Path, make: Callable[[Path], None]) -> Path:
    """``path``, made by ``make(temporary)`` unless it is there; never half a file or folder."""
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.part")
    remove(temporary)
    print(f"making {path}", file=sys.stderr)
    make(temporary)
    if path.exists():  # another process was faster
        remove(temporary)
    else:
        temporary.rename(path)
    return path


def remove(path: Path) -> None:
    """Remove a file or folder that may not be there."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def sources_digest(*paths: Path) -> str:
    """Eight hexadecimal digits that change with Python files, or with those of folders."""
    digest = hashlib.sha256()
    for path in paths:
        # A link to a folder is followed when it is named, but not inside of a folder.
        for file in [path] if path.is_file() else sorted(path.resolve().rglob("*.py")):
            digest.update(file.name.encode())
            digest.update(file.read_bytes())
    return digest.hexdigest()[:8]


def files_of(path: Path) -> list[Path]:
    """A file itself, or the files of a folder."""
    return sorted(p for p in path.iterdir() if p.is_file()) if path.is_dir() else [path]


def drop_from_page_cache(path: Path) -> float:
    """Ask the system to forget the pages of a file or folder; gives the part that it still holds.

    1.0 where the system offers no way to ask.
    """
    if not hasattr(os, "posix_fadvise"):
        return 1.0
    for file in files_of(path):
        descriptor = os.open(file, os.O_RDONLY)
        try:
            with contextlib.suppress(OSError):
                os.fsync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)
    return cached_part(path)


def cached_part(path: Path) -> float:
    """The part of a file's or folder's pages that is in memory; 1.0 where nobody knows."""
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "mincore"):
        return 1.0
    held = pages = 0
    for file in files_of(path):
        size = file.stat().st_size
        if size == 0:
            continue
        with file.open("rb") as opened:
            # A private mapping that is written nowhere: ctypes needs a writable buffer.
            mapped = mmap.mmap(opened.fileno(), size, mmap.MAP_PRIVATE)
        count = -(-size // mmap.PAGESIZE)
        vector = (ctypes.c_ubyte * count)()
        view = (ctypes.c_char * size).from_buffer(mapped)
        failed = libc.mincore(ctypes.byref(view), ctypes.c_size_t(size), vector)
        del view
        mapped.close()
        if failed:
            return 1.0
        held += sum(byte & 1 for byte in bytes(vector))
        pages += count
    return held / pages if pages else 0.0
