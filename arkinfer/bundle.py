"""Reading a bundle: a folder that holds everything the runtime needs (docs/bundle.md)."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from arkinfer import manifest as manifests
from arkinfer.bundle_writer import BundleWriter
from arkinfer.checksum import Checksum
from arkinfer.errors import (
    BundleVersionError,
    DamagedBundleError,
    InputNotFoundError,
    InvalidBundleError,
)
from arkinfer.manifest import Manifest

__all__ = ["Bundle", "BundleWriter", "Manifest"]

_LARGEST_MANIFEST = 64 << 20
_REMEDY = "copy the bundle again, or compile the checkpoint again"


@dataclass(frozen=True)
class Bundle:
    """An opened bundle: its folder, its checked manifest, and its identity.

    ``digest`` is the SHA-256 of ``manifest.json`` in hexadecimal.
    """

    path: Path
    manifest: Manifest
    digest: str

    @staticmethod
    def open(path: str | os.PathLike[str]) -> Bundle:
        """Open a bundle: check its digest, versions, and the presence and size of its files.

        Contents of the large files are checked by :meth:`check`, and by the
        native runtime when it maps them.

        Raises:
            InputNotFoundError: no such folder.
            InvalidBundleError: not a bundle, or a manifest that breaks the format.
            BundleVersionError: a format version or ABI that this package does not read.
            DamagedBundleError: a digest or size that does not match.
        """
        folder = Path(path)
        if not folder.exists():
            raise InputNotFoundError(f"no such bundle: {folder}")
        if not folder.is_dir() or not (folder / "manifest.json").is_file():
            raise InvalidBundleError(
                f"{folder} is not a bundle",
                "a folder that holds manifest.json",
                "make one with 'arkinfer compile'",
            )
        raw = _read(folder / "manifest.json")
        digest = hashlib.sha256(raw).hexdigest()
        matches = _stored_digest(folder) == digest
        try:
            manifest = manifests.parse(raw.decode())
        except BundleVersionError:
            raise
        except (InvalidBundleError, UnicodeDecodeError) as error:
            if not matches:
                raise _damaged("manifest.json", "another SHA-256 than DIGEST says") from None
            if isinstance(error, UnicodeDecodeError):
                raise InvalidBundleError("manifest.json is not UTF-8", "", _REMEDY) from None
            raise
        if not matches:
            raise _damaged("manifest.json", "another SHA-256 than DIGEST says")
        bundle = Bundle(folder, manifest, digest)
        for name, entry in manifest.files.items():
            file = folder / name
            if not file.is_file():
                raise _damaged(name, "gone")
            if file.stat().st_size != entry.bytes:
                raise _damaged(name, f"{file.stat().st_size} bytes long, not {entry.bytes}")
        return bundle

    def file(self, name: str) -> Path:
        """The path of a file that the manifest lists.

        Raises:
            InvalidBundleError: the manifest does not list it.
        """
        if name not in self.manifest.files:
            raise InvalidBundleError(f"the bundle has no {name}", "", _REMEDY)
        return self.path / name

    def read_text(self, name: str) -> str:
        """The checked text of a listed file (UTF-8).

        Raises:
            DamagedBundleError: its SHA-256 is not the manifest's.
            InvalidBundleError: it is not listed, or is not UTF-8.
        """
        raw = _read(self.file(name))
        if hashlib.sha256(raw).hexdigest() != self.manifest.files[name].sha256:
            raise _damaged(name, "changed since it was written")
        try:
            return raw.decode()
        except UnicodeDecodeError:
            raise InvalidBundleError(f"{name} is not UTF-8", "", _REMEDY) from None

    def check(self) -> None:
        """Read every file once and compare both digests.

        Raises:
            DamagedBundleError: names the first file that differs.
        """
        for name, entry in self.manifest.files.items():
            sha, crc = hashlib.sha256(), Checksum()
            with open(self.file(name), "rb") as stream:
                while block := stream.read(4 << 20):
                    sha.update(block)
                    crc.update(block)
            if sha.hexdigest() != entry.sha256 or f"0x{crc.value():08x}" != entry.crc32c:
                raise _damaged(name, "changed since it was written")


def _damaged(name: str, how: str) -> DamagedBundleError:
    return DamagedBundleError(f"{name} of the bundle is {how}", "", _REMEDY)


def _read(path: Path) -> bytes:
    if path.stat().st_size > _LARGEST_MANIFEST:
        raise InvalidBundleError(f"{path.name} is larger than {_LARGEST_MANIFEST >> 20} MiB")
    try:
        return path.read_bytes()
    except OSError as error:
        raise DamagedBundleError(f"{path.name} cannot be read ({error.strerror})") from None


def _stored_digest(folder: Path) -> str:
    try:
        with open(folder / "DIGEST", "rb") as stream:
            raw = stream.read(66)
    except OSError:
        raise _damaged("DIGEST", "gone") from None
    if len(raw) != 65 or not raw.endswith(b"\n"):
        raise _damaged("DIGEST", "not a SHA-256 and a newline")
    return raw[:64].decode("ascii", "replace")
