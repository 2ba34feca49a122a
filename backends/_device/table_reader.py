"""Reading ``launches.json`` in Python, for backends whose bundles the native runtime does not run.

The rules are the native reader's (native/src/device/launch_plan.cc).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from arkinfer.backends._device.table import (
    MOST_BYTES,
    REMEDY,
    SCALARS,
    Argument,
    Facts,
    Kept,
    Range,
    Table,
    TableLaunch,
    TableStep,
)
from arkinfer.errors import InvalidBundleError
from arkinfer.tir.sizes import Size

VERSION = 1
_OPERATORS = ("+", "-", "*", "/", "%", "min", "max")
_KINDS = ("key", "value", "compressed")
_MOST_COLUMNS = 1 << 31
_DEEPEST = 32  # nesting of a size


def read(text: str, name: str, facts: Facts) -> Table:
    """The table in a file of a bundle.

    Args:
        text: the file's content.
        name: of the file, for messages.
        facts: what the rest of the bundle says.

    Raises:
        InvalidBundleError: names the place that breaks a rule.
    """
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidBundleError(f"{name} is not JSON ({error})"[:300], "", REMEDY) from None
    return _Reader(name, data, facts).table()


class _Reader:
    def __init__(self, name: str, data: Any, facts: Facts) -> None:
        self._name = name
        self._data = data
        self._facts = facts
        self._slots: tuple[Size, ...] = ()
        self._weights: dict[str, int] = {}
        self._caches: dict[str, int] = {}

    def table(self) -> Table:
        root, facts = self._data, self._facts
        if self._get("", root, "version", int) != VERSION:
            raise self._wrong("version", root["version"], str(VERSION))
        chunk = self._number("", root, "chunk", 1, 65536)
        if chunk != facts.chunk:
            raise self._wrong("chunk", chunk, f"the manifest's {facts.chunk}")
        rows = self._number("", root, "output_rows", 1, chunk)
        kv = self._get("", root, "kv", str)
        if kv not in ("fp16", "fp32"):
            raise self._wrong("kv", kv, "fp16 or fp32")
        slots = self._get("", root, "slots", list)
        self._slots = tuple(self._size(f"slots[{i}]", size) for i, size in enumerate(slots))
        weights = tuple(self._weight(where, entry) for where, entry in self._each(root, "weights"))
        caches = tuple(self._cache(where, entry) for where, entry in self._each(root, "caches"))
        columns = self._number("", root, "head_columns", 1, _MOST_COLUMNS)
        return Table(
            chunk=chunk,
            output_rows=rows,
            kv=kv,
            slots=self._slots,
            weights=weights,
            caches=caches,
            body=tuple(self._step(where, entry) for where, entry in self._each(root, "body")),
            head=tuple(self._step(where, entry) for where, entry in self._each(root, "head")),
            token_ids=self._slot_for("token_ids", chunk),
            head_input=self._slot_for("head_input", chunk * columns),
            head_rows=self._slot_for("head_rows", rows * columns),
            head_columns=columns,
            logits=self._slot_for("logits", rows * facts.vocab_size),
        )

    def _weight(self, where: str, entry: Any) -> Range:
        name = self._new_name(where, entry, self._weights)
        offset = self._number(where, entry, "offset", 0, MOST_BYTES)
        size = self._number(where, entry, "bytes", 4, MOST_BYTES)
        if offset % 64 or size % 4 or offset + size > self._facts.weights_bytes:
            raise self._wrong(
                where, f"bytes {offset} to {offset + size}", "whole words inside weights.bin"
            )
        return Range(name, size, offset)

    def _cache(self, where: str, entry: Any) -> Range:
        name = self._new_name(where, entry, self._caches)
        kind = self._get(where, entry, "kind", str)
        if kind not in _KINDS:
            raise self._wrong(f"{where}.kind", kind, f"one of {', '.join(_KINDS)}")
        return Range(name, self._size(f"{where}.bytes", self._get(where, entry, "bytes", object)))

    def _new_name(self, where: str, entry: Any, known: dict[str, int]) -> str:
        name: str = self._get(where, entry, "name", str)
        if name in known:
            raise self._wrong(f"{where}.name", name, "each name once")
        known[name] = len(known)
        return name

    def _step(self, where: str, entry: Any) -> TableStep:
        kernel = self._get(where, entry, "kernel", str)
        launches = tuple(
            self._launch(f"{where}.{inner}", launch)
            for inner, launch in self._each(entry, "launches", where)
        )
        kept = self._kept(where, entry) if "keep_layer" in entry else None
        return TableStep(f"{where} ({kernel[:60]!r})", launches, kept)

    def _kept(self, where: str, entry: Any) -> Kept:
        facts = self._facts
        layer = self._number(where, entry, "keep_layer", 0, facts.layers - 1)
        size = self._number(where, entry, "block_size", 1, 64)
        where, output = f"{where}.output", self._get(where, entry, "output", dict)
        slot = self._number(where, output, "slot", 0, len(self._slots) - 1)
        stride = self._number(where, output, "stride", 1, _MOST_COLUMNS)
        columns = self._number(where, output, "columns", 1, stride)
        column = self._number(where, output, "column", 0, stride - columns)
        if columns % facts.kv_heads or columns == facts.kv_heads:
            raise self._wrong(f"{where}.columns", columns, "equal parts for each key-value head")
        self._check_holds(where, slot, facts.chunk * stride)
        return Kept(layer, slot, size, stride, column, columns)

    def _launch(self, where: str, entry: Any) -> TableLaunch:
        groups = self._get(where, entry, "groups", list)
        if len(groups) != 3:
            raise self._wrong(f"{where}.groups", groups, "three sizes")
        x, y, z = (self._size(f"{where}.groups", size) for size in groups)
        return TableLaunch(
            self._get(where, entry, "kernel", str),
            tuple(
                self._argument(f"{where}.{inner}", argument)
                for inner, argument in self._each(entry, "arguments", where)
            ),
            (x, y, z),
            self._number(where, entry, "lanes", 1, 1024),
            self._number(where, entry, "least", 1, _MOST_COLUMNS),
            self._number(where, entry, "most", 1, _MOST_COLUMNS),
        )

    def _argument(self, where: str, entry: Any) -> Argument:
        if "scalar" in entry:
            return Argument("scalar", scalar=self._scalar(where, entry["scalar"]))
        if "weight" in entry:
            return Argument("weight", self._look_up(where, entry, "weight", self._weights))
        if "cache" in entry:
            return Argument("cache", self._look_up(where, entry, "cache", self._caches))
        return Argument("slot", self._number(where, entry, "slot", 0, len(self._slots) - 1))

    def _look_up(self, where: str, entry: Any, key: str, known: Mapping[str, int]) -> int:
        name = self._get(where, entry, key, str)
        if name not in known:
            raise self._wrong(f"{where}.{key}", name, "a name from the list")
        return known[name]

    def _scalar(self, where: str, name: Any) -> str:
        if name not in SCALARS:
            raise self._wrong(where, name, "tokens, past, total or capacity")
        return str(name)

    def _size(self, where: str, size: Any, depth: int = 0) -> Size:
        if depth > _DEEPEST:
            raise self._wrong(where, "a size nested deeper than 32", "a flatter one")
        if isinstance(size, str):
            return self._scalar(where, size)
        if isinstance(size, list):
            if len(size) != 3 or size[0] not in _OPERATORS:
                raise self._wrong(where, size, f"two sizes behind one of {', '.join(_OPERATORS)}")
            return [size[0], *(self._size(where, side, depth + 1) for side in size[1:])]
        if type(size) is not int or not 0 <= size <= MOST_BYTES:
            raise self._wrong(where, size, "0 to 2^50")
        return size

    def _slot_for(self, key: str, numbers: int) -> int:
        slot = self._number("", self._data, key, 0, len(self._slots) - 1)
        self._check_holds(key, slot, numbers)
        return slot

    def _check_holds(self, where: str, slot: int, numbers: int) -> None:
        size = self._slots[slot]
        if not isinstance(size, int) or size < 4 * numbers:
            raise self._wrong(where, "a slot that is too small", f"{4 * numbers} bytes")

    def _each(self, entry: Any, key: str, where: str = "") -> list[tuple[str, dict[str, Any]]]:
        found: list[tuple[str, dict[str, Any]]] = []
        for index, item in enumerate(self._get(where, entry, key, list)):
            if not isinstance(item, dict):
                raise self._wrong(f"{key}[{index}]", item, "an object")
            found.append((f"{key}[{index}]", item))
        return found

    def _number(self, where: str, entry: Any, key: str, least: int, most: int) -> int:
        value = self._get(where, entry, key, int)
        if type(value) is not int or not least <= value <= most:
            raise self._wrong(f"{where}.{key}".lstrip("."), value, f"{least} to {most}")
        return value

    def _get(self, where: str, entry: Any, key: str, kind: type) -> Any:
        if not isinstance(entry, dict) or key not in entry or not isinstance(entry[key], kind):
            found = entry.get(key, "missing") if isinstance(entry, dict) else entry
            raise self._wrong(f"{where}.{key}".lstrip("."), found, f"of type {kind.__name__}")
        return entry[key]

    def _wrong(self, where: str, found: object, expected: str) -> InvalidBundleError:
        return InvalidBundleError(f"{self._name}: {where} is {str(found)[:80]!r}", expected, REMEDY)
