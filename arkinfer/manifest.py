"""``manifest.json``: what a bundle says about itself, typed and checked (docs/bundle.md)."""

from __future__ import annotations

import dataclasses
import json
import math
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from arkinfer.config import ModelConfig
from arkinfer.errors import BundleVersionError, InvalidBundleError
from arkinfer.kv_types import KvType

FORMAT_VERSION = 1
READABLE_VERSIONS = (1,)
RUNTIME_ABI = 1


@dataclass(frozen=True)
class FileEntry:
    """Size in bytes and digests of one file. ``crc32c`` is a hexadecimal string, ``0x`` first."""

    bytes: int
    sha256: str
    crc32c: str


@dataclass(frozen=True)
class AbiRange:
    """The runtime ABI versions that can run the bundle, both ends included."""

    minimum: int = RUNTIME_ABI
    maximum: int = RUNTIME_ABI


@dataclass(frozen=True)
class Quantization:
    """What was asked for, and the storage of each weight (``"w4g128"``, ``"f16"``)."""

    requested: str
    tensors: Mapping[str, str]


@dataclass(frozen=True)
class TokenizerSettings:
    """Token ids that the runtime treats specially."""

    add_bos: bool
    bos_id: int | None
    eos_ids: tuple[int, ...]
    special_ids: tuple[int, ...]


@dataclass(frozen=True)
class HostMemory:
    """Bytes of repacked weights, and of activations and scratch, where the CPU takes a device's
    place."""

    weights: int
    arena: int


@dataclass(frozen=True)
class MemoryFacts:
    """Bytes that running needs; per-token numbers are keyed by KV type, as in ``"fp16"``.

    ``host`` is for a bundle for a device that the CPU can run too.
    """

    weights: int
    kv_bytes_per_token: Mapping[str, int]
    compressed_key_bytes_per_token: Mapping[str, int]
    arena: int
    tokenizer: int
    host: HostMemory | None = None


@dataclass(frozen=True)
class Source:
    """The checkpoint's folder or file name (no path) and its format."""

    path_name: str
    format: str


@dataclass(frozen=True)
class Manifest:
    """Everything about a bundle; see docs/bundle.md for each field.

    ``device`` and ``generation`` are plain mappings: the device profile as
    compiled for, and the checkpoint's sampling defaults. ``kv`` is the KV cache's type
    unless a session asks for another; None leaves it to the runtime.
    """

    created_by: str
    backend: str
    device: Mapping[str, Any]
    model: ModelConfig
    quantization: Quantization
    context: int
    chunk: int
    memory: MemoryFacts
    source: Source
    tokenizer: TokenizerSettings | None = None
    kv: KvType | None = None
    generation: Mapping[str, float] = field(default_factory=dict)
    files: Mapping[str, FileEntry] = field(default_factory=dict)
    format_version: int = FORMAT_VERSION
    runtime_abi: AbiRange = AbiRange()

    def to_json(self) -> str:
        """The text of ``manifest.json``."""
        return json.dumps(dataclasses.asdict(self), indent=1, ensure_ascii=False) + "\n"


def is_plain_name(name: str) -> bool:
    """Whether a name stays inside the bundle's folder on every operating system."""
    return bool(name) and not name.startswith(".") and not set(name) & set("/\\:\0")


def parse(text: str) -> Manifest:
    """Read ``manifest.json``.

    Raises:
        BundleVersionError: a format version or ABI range that this package does not read.
        InvalidBundleError: anything else that breaks the format.
    """
    try:
        data = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise _invalid(f"not JSON ({error})") from None
    if not isinstance(data, dict):
        raise _invalid("not a JSON object")
    _check_version(data)
    manifest: Manifest = _decode(Manifest, data, "manifest")
    bad = [name for name in manifest.files if not is_plain_name(name)]
    if bad:
        raise _invalid(f"file name {bad[0]!r} is not a plain name")
    for name, entry in manifest.files.items():
        if entry.bytes < 0:
            raise _invalid(f"files.{name}.bytes is {entry.bytes}")
    for name in ("context", "chunk"):
        if getattr(manifest, name) < 1:
            raise _invalid(f"{name} is {getattr(manifest, name)}")
    return manifest


def _check_version(data: Mapping[str, Any]) -> None:
    version = data.get("format_version")
    if version not in READABLE_VERSIONS or isinstance(version, bool):
        readable = ", ".join(map(str, READABLE_VERSIONS))
        raise BundleVersionError(
            f"the bundle has format version {str(version)[:40]}",
            f"version {readable}",
            "update arkinfer, or compile the checkpoint again",
        )
    abi = _decode(AbiRange, data.get("runtime_abi"), "runtime_abi")
    if not abi.minimum <= RUNTIME_ABI <= abi.maximum:
        raise BundleVersionError(
            f"the bundle needs runtime ABI {abi.minimum} to {abi.maximum}",
            f"a range that holds this package's ABI {RUNTIME_ABI}",
            "update arkinfer, or compile the checkpoint again",
        )


def _invalid(what: str) -> InvalidBundleError:
    return InvalidBundleError(f"manifest.json: {what}", "", "compile the checkpoint again")


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not a number")


def _decode(kind: Any, value: Any, where: str) -> Any:
    """``value`` as the annotated type ``kind``; unknown keys of objects are ignored."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if dataclasses.is_dataclass(kind):
        if not isinstance(value, dict):
            raise _invalid(f"{where} is not an object")
        hints = typing.get_type_hints(kind)
        fields = {}
        for member in dataclasses.fields(kind):
            if member.name in value:
                fields[member.name] = _decode(
                    hints[member.name], value[member.name], f"{where}.{member.name}"
                )
            elif (
                member.default is dataclasses.MISSING
                and member.default_factory is dataclasses.MISSING
            ):
                raise _invalid(f"{where}.{member.name} is missing")
        return typing.cast(Any, kind)(**fields)
    if origin in (types.UnionType, typing.Union):
        inner = next(a for a in arguments if a is not type(None))
        return None if value is None else _decode(inner, value, where)
    if origin is tuple and isinstance(value, list):
        return tuple(_decode(arguments[0], v, where) for v in value)
    if origin is typing.Literal:
        if isinstance(value, str) and value in arguments:
            return value
        raise _invalid(f"{where} is {str(value)[:40]!r}, not {' or '.join(arguments)}")
    if origin is not None and issubclass(origin, Mapping) and isinstance(value, dict):
        return {k: _decode(arguments[1], v, f"{where}.{k}") for k, v in value.items()}
    if kind is Any:
        return value
    if kind is float and type(value) in (int, float) and math.isfinite(value):
        return float(value)
    if kind in (int, str, bool) and type(value) is kind:
        if kind is int and abs(value) >= 1 << 63:
            raise _invalid(f"{where} is out of range")
        return value
    raise _invalid(f"{where} is {str(value)[:40]!r}")
