"""``launches.json`` as Python runs it, once ``table_reader.py`` has read it.

Indices are into the table's own lists, and names are checked: whoever runs it only looks things up.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from arkinfer.errors import InvalidBundleError
from arkinfer.tir.sizes import Size, evaluate

SCALARS = ("tokens", "past", "total", "capacity")
MOST_BYTES = 1 << 50
REMEDY = "compile the bundle again"


@dataclass(frozen=True)
class Facts:
    """What a table has to fit: sizes of the model, and of ``weights.bin`` in bytes."""

    chunk: int
    vocab_size: int
    layers: int
    kv_heads: int
    weights_bytes: int


Holder = Literal["slot", "weight", "cache", "scalar"]


@dataclass(frozen=True)
class Argument:
    """What an argument of a launch is: a piece of memory by its index, or a scalar by its name."""

    holder: Holder
    index: int = 0
    scalar: str = ""


@dataclass(frozen=True)
class TableLaunch:
    """A call of a kernel; used for ``least`` to ``most`` tokens."""

    kernel: str
    arguments: tuple[Argument, ...]
    groups: tuple[Size, Size, Size]
    lanes: int
    least: int
    most: int

    def used(self, tokens: int) -> bool:
        """Whether a call with so many tokens makes it."""
        return self.least <= tokens <= self.most


@dataclass(frozen=True)
class Kept:
    """Blocks that a step chooses in a layer: int32 columns of a slot, some for each KV head."""

    layer: int
    slot: int
    block_size: int
    stride: int
    column: int
    columns: int


@dataclass(frozen=True)
class TableStep:
    """A step: its place for messages, its launches, and what is kept of it."""

    place: str
    launches: tuple[TableLaunch, ...]
    kept: Kept | None


@dataclass(frozen=True)
class Range:
    """A named range of ``weights.bin``, or a cache's size."""

    name: str
    size: Size
    offset: int = 0


@dataclass(frozen=True)
class Table:
    """All of ``launches.json``; docs/bundle.md has the meaning of each part."""

    chunk: int
    output_rows: int
    kv: Literal["fp16", "fp32"]
    slots: tuple[Size, ...]
    weights: tuple[Range, ...]
    caches: tuple[Range, ...]
    body: tuple[TableStep, ...]
    head: tuple[TableStep, ...]
    token_ids: int
    head_input: int
    head_rows: int
    head_columns: int
    logits: int


def bytes_of(size: Size, capacity: int, what: str) -> int:
    """A piece of memory's size once the caches' capacity is known, in whole words.

    Raises:
        InvalidBundleError: it is not a size.
    """
    value = value_of(size, {name: capacity for name in SCALARS}, what)
    return max(-(-value // 4) * 4, 4)


def value_of(size: Size, scalars: Mapping[str, int], what: str) -> int:
    """The value of a size that a bundle gives.

    Raises:
        InvalidBundleError: it divides by zero, is negative or beyond 2^50.
    """
    try:
        value = evaluate(size, scalars)
    except ZeroDivisionError:
        value = -1
    if not 0 <= value <= MOST_BYTES:
        raise InvalidBundleError(f"{what}: a size of {value}", "0 to 2^50", REMEDY)
    return value
