"""Which kernels of a bundle are faster on this CPU: measured, kept beside the bundle, read again.

Only bundles that bring compiled kernels have a choice. The table is ``tuning.json`` in the
bundle's folder (docs/bundle.md); it is no part of the bundle, whose digest stays what it was.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import errno
import json
import os
import secrets
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from arkinfer import kv_types
from arkinfer.bundle import Bundle
from arkinfer.errors import InvalidBundleError, InvalidOptionError, StorageError
from arkinfer.kv_types import KvType
from arkinfer.runtime import library
from arkinfer.runtime.native_session import NativeModel, NativeSession, SessionOptions, Step

FILE = "tuning.json"
TABLE = "kernels.json"
VERSION = 1
Use = Literal["compiled", "builtin"]
Activations = Literal["int8", "fp32"]
# Compiled kernels have to be faster by this much, or noise would decide between equals.
_MARGIN = 0.97
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


@dataclass(frozen=True)
class Settings:
    """What to measure: counts of tokens, tokens before them, repeats, and threads (0: all)."""

    tokens: tuple[int, ...] = (1, 4, 16, 64)
    depth: int = 512
    repeat: int = 5
    threads: int = 0


def state(bundle: Bundle) -> str:
    """In words, which kernels a bundle brings and what is known of them; empty without any.

    Raises:
        InvalidBundleError: its tables break their rules.
    """
    if TABLE not in bundle.manifest.files:
        return ""
    isa = _table(bundle)["isa"]
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


def measure(
    bundle: Bundle, settings: Settings, progress: Callable[[float], None] | None = None
) -> Tuning:
    """Run a bundle with its own and with the runtime's kernels, and compare every step.

    Both run in turns, so that what else the machine does falls on both.

    Args:
        bundle: with compiled kernels.
        settings: what to measure.
        progress: told the fraction that is done.

    Raises:
        InvalidOptionError: the bundle brings no kernels, or has no room for what is to be measured.
        InvalidBundleError: its code is not for this CPU.
    """
    if TABLE not in bundle.manifest.files:
        raise InvalidOptionError(
            "this bundle brings no kernels to choose from",
            "one with compiled kernels",
            "compile it with: --kernels tvm",
        )
    table, manifest = _table(bundle), bundle.manifest
    tokens = tuple(sorted({min(count, manifest.chunk) for count in settings.tokens}))
    depth = min(settings.depth, manifest.context - tokens[-1])
    if tokens[0] < 1 or depth < 0 or settings.repeat < 1:
        raise InvalidOptionError(
            f"{tokens[-1]} tokens in a context of {manifest.context}", "fewer of them"
        )
    model = NativeModel(bundle.path)
    sessions = {
        name: NativeSession(model, SessionOptions(depth + tokens[-1], settings.threads, **options))
        for name, options in _KINDS.items()
    }
    for session in sessions.values():
        session.fill_random(depth)
    taken: dict[str, list[list[float]]] = {name: [] for name in sessions}
    runs = len(tokens) * settings.repeat
    for index, count in enumerate(tokens):
        samples: dict[str, list[list[float]]] = collections.defaultdict(list)
        for repeat in range(settings.repeat):
            for name, session in sessions.items():
                samples[name].append(_seconds(session, table, count, depth))
            if progress is not None:
                progress((index * settings.repeat + repeat + 1) / runs)
        for name in sessions:
            columns = zip(*samples[name], strict=True)
            taken[name].append([statistics.median(column) for column in columns])
    for index in _of_head_alone(table):
        # One row of logits is computed, whatever the count of tokens is.
        for name in sessions:
            for seconds in taken[name]:
                seconds[index] = taken[name][0][index]
    shapes = tuple(
        _shape(name, index, taken, len(tokens)) for index, name in enumerate(table["shapes"])
    )
    threads = sessions["compiled"].threads
    kv: KvType = manifest.kv or "fp16"
    return Tuning(bundle.digest, library.cpu_name(), threads, depth, kv, tokens, shapes)


_KINDS: dict[str, Any] = {
    "compiled": {"kernels": "compiled", "activations": "fp32"},
    "int8": {"kernels": "builtin", "activations": "int8"},
    "fp32": {"kernels": "builtin", "activations": "fp32"},
}


def _seconds(session: NativeSession, table: Any, count: int, depth: int) -> list[float]:
    """Seconds by shape of one run of ``count`` tokens."""
    steps: list[float] = []
    session.rollback(depth)

    def add(step: Step) -> None:
        steps.append(step.seconds)

    with session.trace(add):
        session.append([int(i) for i in np.arange(count) % 2])
    result = [0.0] * len(table["shapes"])
    for entry, seconds in zip(table["body"] + table["head"], steps, strict=True):
        if entry["launches"]:
            result[entry["shape"]] += seconds
    return result


def _of_head_alone(table: Any) -> set[int]:
    body, head = ({e["shape"] for e in table[k] if e["launches"]} for k in ("body", "head"))
    return head - body


def _shape(name: str, index: int, taken: dict[str, list[list[float]]], counts: int) -> Shape:
    def of(kind: str) -> tuple[float, ...]:
        return tuple(taken[kind][i][index] for i in range(counts))

    compiled = of("compiled")
    kinds: Sequence[Activations] = ("int8", "fp32")
    builtin = {kind: of(kind) for kind in kinds}
    use: dict[Activations, tuple[Use, ...]] = {
        kind: tuple(
            "compiled" if ours < _MARGIN * theirs else "builtin"
            for ours, theirs in zip(compiled, builtin[kind], strict=True)
        )
        for kind in kinds
    }
    return Shape(name, compiled, builtin, use)


def _use(text: Any) -> Use:
    if text == "compiled":
        return "compiled"
    if text != "builtin":
        raise ValueError(f"{text!r} is no kind of kernels")
    return "builtin"


def _table(bundle: Bundle) -> Any:
    try:
        table = json.loads(bundle.read_text(TABLE))
        return {key: table[key] for key in ("isa", "shapes", "body", "head")}
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InvalidBundleError(f"{TABLE} cannot be read ({error!r})") from None
