"""Measuring which kernels of a bundle are faster here, its own or the runtime's."""

from __future__ import annotations

import collections
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from arkinfer.bundle import Bundle
from arkinfer.errors import InvalidOptionError
from arkinfer.kv_types import KvType
from arkinfer.runtime import library
from arkinfer.runtime.native_session import NativeModel, NativeSession, SessionOptions, Step
from arkinfer.tuning import TABLE, Activations, Shape, Tuning, Use, compiled_steps

# Compiled kernels have to be faster by this much, or noise would decide between equals.
_MARGIN = 0.97


@dataclass(frozen=True)
class Settings:
    """What to measure: counts of tokens, tokens before them, repeats, and threads (0: all)."""

    tokens: tuple[int, ...] = (1, 4, 16, 64)
    depth: int = 512
    repeat: int = 5
    threads: int = 0


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
    table, manifest = compiled_steps(bundle), bundle.manifest
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
