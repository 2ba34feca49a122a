"""TIR expressions of the elements of a weight (``matrix.py`` has the layout)."""

from __future__ import annotations

from typing import Any

from tvm.script import tirx as T

from arkinfer.quantize.schemes import GroupScheme
from arkinfer.tir import halves
from arkinfer.tir.matrix import Matrix


def _bits(matrix: Matrix, word: Any, index: Any) -> Any:
    """The bits of the element at a place, which may be a loop's variable."""
    if matrix.bits == 32:
        return word
    shift = T.Cast("uint32", index * matrix.bits) if not isinstance(index, int) else None
    moved = word >> (halves.u32(index * matrix.bits) if shift is None else shift)
    return moved & halves.u32((1 << matrix.bits) - 1)


def _code(matrix: Matrix, word: Any, index: Any) -> Any:
    return T.Cast("float32", T.Cast("int32", _bits(matrix, word, index)))


def _float(matrix: Matrix, word: Any, index: Any) -> Any:
    bits = _bits(matrix, word, index)
    if matrix.storage == "f32":
        return halves.as_float(bits)
    return halves.low(bits) if matrix.storage == "f16" else halves.bf16(bits)


def scale_and_second(matrix: Matrix, scales: Any, row: Any, column: Any) -> tuple[Any, Any]:
    """Scale and second number of the group of a row's input ``column``; 1 and 0 of floats."""
    if not isinstance(matrix.storage, GroupScheme):
        return T.float32(1), T.float32(0)
    slot = row * (matrix.inputs // matrix.group) + column // matrix.group
    if matrix.scale_words == 1:
        return halves.low(scales[slot]), halves.high(scales[slot])
    return halves.as_float(scales[slot * 2]), halves.as_float(scales[slot * 2 + 1])


def element(matrix: Matrix, word: Any, index: Any, scale: Any, second: Any) -> Any:
    """The number at place ``index`` of a word."""
    if not isinstance(matrix.storage, GroupScheme):
        return _float(matrix, word, index)
    if matrix.storage.offset == "minimum":
        return _code(matrix, word, index) * scale + second
    return (_code(matrix, word, index) - second) * scale


def dot(matrix: Matrix, word: Any, scale: Any, second: Any, x: Any) -> Any:
    """The product of a word's numbers and ``x[0], x[1], ...``, the scale taken out of the sum."""
    places = range(matrix.per_word)
    if not isinstance(matrix.storage, GroupScheme):
        return _sum([_float(matrix, word, j) * x[j] for j in places])
    if matrix.storage.offset == "minimum":
        codes = _sum([_code(matrix, word, j) * x[j] for j in places])
        return codes * scale + _sum([x[j] for j in places]) * second
    return _sum([(_code(matrix, word, j) - second) * x[j] for j in places]) * scale


def _sum(terms: list[Any]) -> Any:
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total
