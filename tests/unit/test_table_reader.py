"""Reading launches.json in Python: what is right is read, all else gets a named error."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

import pytest

from arkinfer.backends._device.table import Argument, Facts, Kept, bytes_of, value_of
from arkinfer.backends._device.table_reader import read
from arkinfer.errors import InvalidBundleError

FACTS = Facts(chunk=4, vocab_size=10, layers=2, kv_heads=2, weights_bytes=192)
TABLE: dict[str, Any] = {
    "version": 1,
    "chunk": 4,
    "output_rows": 2,
    "kv": "fp16",
    "slots": [256, 256, ["*", ["/", "capacity", 16], 8]],
    "weights": [
        {"name": "w.codes", "offset": 0, "bytes": 64},
        {"name": "w.scales", "offset": 128, "bytes": 8},
    ],
    "caches": [{"name": "layers.0.key", "kind": "key", "bytes": ["*", "capacity", 128]}],
    "body": [
        {
            "kernel": "select_blocks",
            "stage": "layers.1.blocks",
            "output": {"slot": 1, "type": "i32", "stride": 8, "column": 2, "columns": 6},
            "keep_layer": 1,
            "block_size": 16,
            "launches": [
                {
                    "kernel": "choose_kernel",
                    "arguments": [
                        {"weight": "w.scales"},
                        {"cache": "layers.0.key"},
                        {"slot": 2},
                        {"scalar": "past"},
                    ],
                    "groups": ["tokens", ["+", ["%", "total", 3], 1], 1],
                    "lanes": 64,
                    "least": 1,
                    "most": 3,
                }
            ],
        }
    ],
    "head": [],
    "token_ids": 0,
    "head_input": 0,
    "head_rows": 1,
    "head_columns": 16,
    "logits": 1,
}


def text(table: Any) -> str:
    return json.dumps(table)


def test_a_table_is_read() -> None:
    table = read(text(TABLE), "launches.json", FACTS)
    assert (table.chunk, table.kv, table.logits, table.head) == (4, "fp16", 1, ())
    step = table.body[0]
    assert step.place == "body[0] ('select_blocks')"
    assert step.kept == Kept(layer=1, slot=1, block_size=16, stride=8, column=2, columns=6)
    launch = step.launches[0]
    assert launch.arguments == (
        Argument("weight", 1),
        Argument("cache", 0),
        Argument("slot", 2),
        Argument("scalar", scalar="past"),
    )
    assert launch.used(1) and launch.used(3) and not launch.used(4)
    assert bytes_of(table.slots[2], 128, "a slot") == 64
    scalars = {"tokens": 2, "past": 0, "total": 5, "capacity": 64}
    assert [value_of(size, scalars, "groups") for size in launch.groups] == [2, 3, 1]


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where the values inside a value are."""
    keys = value if isinstance(value, dict) else range(len(value))
    for key in keys:
        yield (*path, key)
        if isinstance(value[key], dict | list):
            yield from places(value[key], (*path, key))


@pytest.mark.parametrize("place", list(places(TABLE)), ids=lambda p: ".".join(map(str, p)))
def test_a_wrong_value_is_named(place: tuple[Any, ...]) -> None:
    """In every place: other types, numbers out of range, and nothing at all."""
    wrong = [None, -1, 1 << 60, 1.5, True, "x", [], {}, [1], ["/", 1, 0], {"slot": 99}]
    refused = 0
    for value in wrong:
        changed = copy.deepcopy(TABLE)
        inner = changed
        for key in place[:-1]:
            inner = inner[key]
        inner[place[-1]] = value
        try:
            table = read(text(changed), "launches.json", FACTS)
            for size in (*table.slots, *(cache.size for cache in table.caches)):
                bytes_of(size, 64, "memory")
        except InvalidBundleError as error:
            assert "launches.json" in str(error) or "memory" in str(error)
            refused += 1
    assert refused >= (0 if place[-1] in ("stage", "type") else 5)


@pytest.mark.parametrize("key", [key for key in TABLE])
def test_a_missing_part_is_named(key: str) -> None:
    without = {name: value for name, value in TABLE.items() if name != key}
    with pytest.raises(InvalidBundleError, match=key):
        read(text(without), "launches.json", FACTS)


@pytest.mark.parametrize("raw", ["", "[", "3", "null", "[" * 100000, '{"version": 1}'])
def test_other_text_is_named(raw: str) -> None:
    with pytest.raises(InvalidBundleError, match="launches.json"):
        read(raw, "launches.json", FACTS)


def test_sizes_that_are_none_are_named() -> None:
    for size in (["-", 1, 2], ["/", 1, ["-", "tokens", "tokens"]], ["*", 1 << 30, 1 << 30]):
        with pytest.raises(InvalidBundleError, match="a buffer: a size of"):
            bytes_of(size, 64, "a buffer")
