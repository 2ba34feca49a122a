"""Writing a bundle: under a temporary name, renamed when it is whole."""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import os
import secrets
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import IO, Literal

from arkinfer.checksum import Checksum
from arkinfer.errors import OutputExistsError, StorageError
from arkinfer.manifest import FileEntry, HostMemory, Manifest, is_plain_name

_STORAGE_ERRNO = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS}
_LOCK = ".lock"


def _storage(error: OSError, path: Path) -> StorageError:
    reason = error.strerror or str(error)
    return StorageError(
        f"cannot write {path} ({reason})", "", "free space or choose another folder with -o"
    )


class BundleFile:
    """A file of a bundle that is being written; digests are taken on the way."""

    def __init__(self, writer: BundleWriter, name: str) -> None:
        self._writer = writer
        self._name = name
        self._sha = hashlib.sha256()
        self._crc = Checksum()
        self._size = 0
        try:
            self._stream: IO[bytes] = open(writer.folder / name, "wb", buffering=0)
        except OSError as error:
            raise _storage(error, writer.path / name) from error

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Append bytes.

        Raises:
            StorageError: the disk is full or the folder cannot be written.
        """
        view = memoryview(data).cast("B")
        self._sha.update(view)
        self._crc.update(view)
        self._size += len(view)
        try:
            rest = view
            while len(rest):
                rest = rest[self._stream.write(rest) or 0 :]
        except OSError as error:
            raise _storage(error, self._writer.path / self._name) from error
        if self._writer.on_write is not None:
            self._writer.on_write(len(view))

    def align(self, boundary: int) -> int:
        """Pad with zeros to a multiple of ``boundary`` bytes; return the offset reached."""
        self.write(bytes(-self._size % boundary))
        return self._size

    def __enter__(self) -> BundleFile:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            self._stream.close()
        except OSError as error:
            raise _storage(error, self._writer.path / self._name) from error
        if kind is None:
            self._writer.entries[self._name] = FileEntry(
                self._size, self._sha.hexdigest(), f"0x{self._crc.value():08x}"
            )


class BundleWriter:
    """Context manager that makes one bundle, or nothing.

    Files are written with :meth:`open_file`, or straight into :attr:`folder`
    by libraries that want a path. :meth:`finish` writes the manifest and
    renames the folder; leaving the block without it removes everything.

    Attributes:
        path: the bundle's final path.
        folder: the temporary folder beside it.
        entries: digests of the files written so far.
        on_write: called with the number of bytes after each write.
        weights_bytes: bytes that the runtime maps; set by the backend.
        arena_bytes: bytes of activations and scratch; set by the backend.
        host_memory: of the CPU in a device's place, where the backend lets it take that.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        suffix = f"{os.getpid()}-{secrets.token_hex(4)}"
        self.folder = self.path.parent / f".{self.path.name}.{suffix}.partial"
        self.entries: dict[str, FileEntry] = {}
        self.on_write: Callable[[int], None] | None = None
        self.weights_bytes = 0
        self.arena_bytes = 0
        self.host_memory: HostMemory | None = None
        self._lock: IO[bytes] | None = None
        self._finished = False

    def __enter__(self) -> BundleWriter:
        """Make the temporary folder.

        Raises:
            OutputExistsError: the path holds something that is not a bundle.
            StorageError: the folder cannot be made.
        """
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._recover()
            if self.path.exists() and not _replaceable(self.path):
                raise OutputExistsError(
                    f"{self.path} exists and is not a bundle",
                    "",
                    "choose another output with -o, or remove it",
                )
            self.folder.mkdir()
            self._lock = _take_lock(self.folder / _LOCK)
        except OSError as error:
            shutil.rmtree(self.folder, ignore_errors=True)
            raise _storage(error, self.path) from error
        return self

    def open_file(self, name: str) -> BundleFile:
        """A new file of the bundle, to be used in a ``with`` block.

        Raises:
            StorageError: it cannot be created.
            ValueError: the name is not plain, or is taken.
        """
        if not is_plain_name(name) or name in ("manifest.json", "DIGEST") or name in self.entries:
            raise ValueError(f"not a usable file name: {name!r}")
        return BundleFile(self, name)

    def finish(self, manifest: Manifest) -> None:
        """Write the manifest (its ``files`` are filled in here) and give the bundle its name.

        Raises:
            StorageError: a write failed.
        """
        try:
            for file in sorted(self.folder.iterdir()):
                if file.name not in self.entries and file.name != _LOCK:
                    self.entries[file.name] = _digest(file)
            text = dataclasses.replace(manifest, files=dict(sorted(self.entries.items()))).to_json()
            raw = text.encode()
            (self.folder / "manifest.json").write_bytes(raw)
            (self.folder / "DIGEST").write_bytes(hashlib.sha256(raw).hexdigest().encode() + b"\n")
            self._release()
            self._rename()
        except OSError as error:
            raise _storage(error, self.path) from error
        self._finished = True

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> Literal[False]:
        if not self._finished:
            self._release()
            shutil.rmtree(self.folder, ignore_errors=True)
        if isinstance(error, OSError) and error.errno in _STORAGE_ERRNO:
            raise _storage(error, self.path) from error
        return False

    def _release(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None
            (self.folder / _LOCK).unlink(missing_ok=True)

    def _rename(self) -> None:
        # A folder cannot replace a full one: the old bundle steps aside first, and
        # _recover() puts it back if we die between the two renames.
        aside = self.folder.with_suffix(".replaced")
        if self.path.exists():
            os.rename(self.path, aside)
        try:
            os.rename(self.folder, self.path)
        except OSError:
            if aside.exists():
                os.rename(aside, self.path)
            raise
        shutil.rmtree(aside, ignore_errors=True)

    def _recover(self) -> None:
        """Remove what killed compiles of this path left behind."""
        if not self.path.parent.is_dir():
            return
        for old in self.path.parent.iterdir():
            if not old.name.startswith(f".{self.path.name}."):
                continue
            if old.suffix == ".partial" and _is_abandoned(old / _LOCK):
                shutil.rmtree(old, ignore_errors=True)
            elif old.suffix == ".replaced":
                if self.path.exists():
                    shutil.rmtree(old, ignore_errors=True)
                else:
                    os.rename(old, self.path)


def _replaceable(path: Path) -> bool:
    if not path.is_dir() or path.is_symlink():
        return False
    return (path / "manifest.json").is_file() or not any(path.iterdir())


def _digest(file: Path) -> FileEntry:
    sha, crc, size = hashlib.sha256(), Checksum(), 0
    with open(file, "rb") as stream:
        while block := stream.read(4 << 20):
            sha.update(block)
            crc.update(block)
            size += len(block)
    return FileEntry(size, sha.hexdigest(), f"0x{crc.value():08x}")


def _take_lock(path: Path) -> IO[bytes]:
    """Hold a lock for as long as this process lives (a pid could be taken again)."""
    stream = open(path, "wb")
    if os.name == "posix":
        import fcntl

        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            stream.close()
            raise
    return stream


def _is_abandoned(path: Path) -> bool:
    try:
        if not path.exists():
            # Its owner may be between making the folder and the lock, or at the rename.
            return time.time() - path.parent.stat().st_mtime > 60
        if os.name != "posix":
            path.unlink()  # fails while a living process has it open
            return True
        _take_lock(path).close()
    except OSError:
        return False
    return True
