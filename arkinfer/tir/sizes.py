"""Sizes as data: what launch tables hold in place of numbers that a call decides."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# A number, the name of a scalar, or [operator, left, right].
Size = int | str | list[Any]


def evaluate(size: Size, scalars: Mapping[str, int]) -> int:
    """The value of a size."""
    if isinstance(size, int):
        return size
    if isinstance(size, str):
        return scalars[size]
    left, right = evaluate(size[1], scalars), evaluate(size[2], scalars)
    operator = size[0]
    if operator in ("/", "%"):
        return left // right if operator == "/" else left % right
    results = {
        "+": left + right,
        "-": left - right,
        "*": left * right,
        "min": min(left, right),
        "max": max(left, right),
    }
    return results[operator]
