"""Which kernels of a bundle are faster on this CPU: the table that is kept beside the bundle.

Only bundles that bring compiled kernels have a choice. The table is ``tuning.json`` in the
bundle's folder (docs/bundle.md); it is no part of the bundle, whose digest stays what it was.
``arkinfer/tune.py`` measures it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import json
import os
import secrets
from dataclasses import dataclass
from typing import Any, Literal

from arkinfer import kv_types
from arkinfer.bundle import Bundle
from arkinfer.errors import InvalidBundleError, InvalidOptionError, StorageError
from arkinfer.kv_types import KvType
from arkinfer.runtime import library

FILE = "tuning.json"
TABLE = "kernels.json"
VERSION = 1
Use = Literal["compiled", "builtin"]
Activations = Literal["int8", "fp32"]
_REMEDY = "tune the bundle again with: arkinfer tune"


@dataclass(frozen=True)
class Shape:
    """Steps of one kernel and one size, summed over all layers.

    Attributes:
        shape: kernel and sizes, as in ``"matmul 4096 x 4096 w4g128"``.
        compiled: median seconds with the bundle's kernels, by count of tokens.
        builtin: the same with the runtime's, by activations.
        use: which are faster, by activations and count of tokens.
    """

    shape: str
    compiled: tuple[float, ...]
    builtin: dict[Activations, tuple[float, ...]]
    use: dict[Activations, tuple[Use, ...]]


@dataclass(frozen=True)
class Tuning:
    """A table of one bundle on one CPU.

    Attributes:
        bundle: the bundle's digest.
        cpu: what the CPU calls itself.
        threads: that computed.
        depth: tokens that were in the context.
        kv: the caches' type.
        tokens: counts that were measured.
        shapes: in the order of ``kernels.json``.
    """

    bundle: str
    cpu: str
    threads: int
    depth: int
    kv: KvType
    tokens: tuple[int, ...]
    shapes: tuple[Shape, ...]

    def fits(self, bundle: Bundle) -> bool:
        """Whether the runtime takes it for that bundle on this machine."""
        return self.bundle == bundle.digest and self.cpu == library.cpu_name()


def state(bundle: Bundle) -> str:
    """In words, which kernels a bundle brings and what is known of them; empty without any.

    Raises:
        InvalidBundleError: its tables break their rules.
    """
    if TABLE not in bundle.manifest.files:
        return ""
    isa = compiled_steps(bundle)["isa"]
    tuning = read(bundle)
    if tuning is None:
        return f"compiled for {isa}, not tuned: all of them are used ('arkinfer tune' measures)"
    if tuning.bundle != bundle.digest:
        return f"compiled for {isa}; tuned for an earlier bundle of that name, which does not count"
    if tuning.cpu != library.cpu_name():
        return (
            f"compiled for {isa}; tuned on {tuning.cpu}, which does not count on "
            f"{library.cpu_name() or 'this CPU'}: run 'arkinfer tune' here"
        )
    uses = [use for shape in tuning.shapes for use in shape.use["int8"]]
    return (
        f"compiled for {isa}, tuned on {tuning.cpu} with {tuning.threads} threads: "
        f"{uses.count('compiled')} of {len(uses)} choices compiled (int8 activations)"
    )


def notice(bundle: Bundle) -> str:
    """Why a table that is there does not count, for whoever runs the bundle; else empty."""
    tuning = read(bundle) if TABLE in bundle.manifest.files else None
    return "" if tuning is None or tuning.fits(bundle) else state(bundle)


def read(bundle: Bundle) -> Tuning | None:
    """The table beside a bundle, if there is one.

    Raises:
        InvalidBundleError: it is not what this package writes.
    """
    path = bundle.path / FILE
    try:
        data = json.loads(path.read_bytes())
        if data.pop("version") != VERSION:
            raise ValueError("another version")
        shapes = tuple(
            Shape(
                str(entry["shape"]),
                tuple(map(float, entry["compiled"])),
                {name: tuple(map(float, entry["builtin"][name])) for name in ("int8", "fp32")},
                {name: tuple(map(_use, entry["use"][name])) for name in ("int8", "fp32")},
            )
            for entry in data.pop("shapes")
        )
        return Tuning(
            str(data["bundle"]),
            str(data["cpu"]),
            int(data["threads"]),
            int(data["depth"]),
            kv_types.parse(data["kv"]),
            tuple(int(count) for count in data["tokens"]),
            shapes,
        )
    except FileNotFoundError:
        return None
    except (
        OSError,
        ValueError,
        ArithmeticError,
        LookupError,
        TypeError,
        AttributeError,
        RecursionError,
        InvalidOptionError,
    ) as error:
        raise InvalidBundleError(f"{path} cannot be read ({error!r})", "", _REMEDY) from None


def write(bundle: Bundle, tuning: Tuning) -> None:
    """Put a table beside a bundle, in one move: readers see the old one or the new one.

    Raises:
        StorageError: it cannot be written.
    """
    path = bundle.path / FILE
    partial = path.with_name(f".{FILE}.{secrets.token_hex(4)}.partial")
    text = json.dumps({"version": VERSION, **dataclasses.asdict(tuning)}, indent=1)
    try:
        with open(partial, "xb") as file:
            file.write(text.encode())
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise StorageError(
            f"cannot write {path} ({error.strerror or errno.errorcode.get(error.errno or 0)})",
            "",
            "tune a copy of the bundle in a folder that can be written",
        ) from None


def _use(text: Any) -> Use:
    if text == "compiled":
        return "compiled"
    if text != "builtin":
        raise ValueError(f"{text!r} is no kind of kernels")
    return "builtin"


def compiled_steps(bundle: Bundle) -> Any:
    """What ``kernels.json`` says: ``isa``, ``shapes`` and the steps of ``body`` and ``head``.

    Raises:
        InvalidBundleError: it cannot be read.
    """
    try:
        table = json.loads(bundle.read_text(TABLE))
        return {key: table[key] for key in ("isa", "shapes", "body", "head")}
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InvalidBundleError(f"{TABLE} cannot be read ({error!r})") from None
