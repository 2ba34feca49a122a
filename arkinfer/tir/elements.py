"""TIR expressions of the elements of a weight (``matrix.py`` has the layout)."""

from __future__ import annotations

from typing import Any

from tvm.script import tirx as T

from arkinfer.quantize.schemes import GroupScheme
from arkinfer.tir import halves
from arkinfer.tir.loops import Loops
from arkinfer.tir.matrix import Matrix


def in_halves(loops: Loops, matrix: Matrix) -> bool:
    """Whether products with a weight are computed in fp16: those of codes, where it is fast.

    They count on inputs below 8,000: eight of them, each times less than one, add up in a half.
    """
    return loops.schedule.half and isinstance(matrix.storage, GroupScheme)


def words_at_once(loops: Loops, matrix: Matrix, most: int = 4) -> int:
    """Words of a row that a lane reads at once: rows and groups are whole numbers of them.

    Images hold four words in a place; what is read in smaller parts is read from buffers.
    """
    words, group_words = min(loops.schedule.vector, most), matrix.group // matrix.per_word
    while matrix.words % words or (group_words % words and words % group_words):
        words //= 2
    return words


def load_inputs(
    loops: Loops, inputs: Any, x: Any, at: Any, count: int, dtype: str, first: Any = 0
) -> None:
    """Read ``inputs[first], inputs[first + 1], ...`` as ``dtype`` from consecutive float32."""
    # OpenCL alone reads vectors that lie anywhere.
    width = next(n for n in (4, 2, 1) if count % n == 0 and n <= loops.schedule.vector)
    for i in range(0, count, width):
        if width == 1:
            T.buffer_store(inputs, T.Cast(dtype, x[at + i]), [first + i])
        else:
            several = T.Cast(f"{dtype}x{width}", x[T.Ramp(at + i, 1, width)])
            T.buffer_store(inputs, several, [T.Ramp(first + i, 1, width)])


def load_words(
    loops: Loops,
    matrix: Matrix,
    words: Any,
    codes: Any,
    row: Any,
    place: Any,
    count: int,
    first: Any = 0,
) -> None:
    """Read ``words[first], words[first + 1], ...``: ``count`` of them, from a place of a row.

    Places are as wide; ``count`` is at most what :func:`words_at_once` says.
    """
    if count == 1:
        T.buffer_store(words, codes[row * matrix.words + place], [first])
    elif count == 4 and loops.schedule.images:
        at = row * (matrix.words // 4) + place
        four = T.call_extern("uint32x4", "read_imageui", codes.data, at)
        T.buffer_store(words, four, [T.Ramp(first, 1, 4)])
    else:
        many = codes[T.Ramp(row * matrix.words + place * count, 1, count)]
        T.buffer_store(words, many, [T.Ramp(first, 1, count)])


def _bits(matrix: Matrix, word: Any, index: Any) -> Any:
    """The bits of the element at a place, which may be a loop's variable."""
    if matrix.bits == 32:
        return word
    shift = T.Cast("uint32", index * matrix.bits) if not isinstance(index, int) else None
    moved = word >> (halves.u32(index * matrix.bits) if shift is None else shift)
    return moved & halves.u32((1 << matrix.bits) - 1)


def _code(matrix: Matrix, word: Any, index: Any, dtype: str = "float32") -> Any:
    return T.Cast(dtype, T.Cast("int32", _bits(matrix, word, index)))


def _float(loops: Loops, matrix: Matrix, word: Any, index: Any) -> Any:
    bits = _bits(matrix, word, index)
    if matrix.storage == "f32":
        return halves.as_float(bits)
    return halves.low(bits, loops.schedule.half) if matrix.storage == "f16" else halves.bf16(bits)


def load_scale(
    loops: Loops, matrix: Matrix, scale: Any, scales: Any, row: Any, column: Any
) -> None:
    """Read scale and second number of the group of a row's input ``column``; 1 and 0 of floats."""
    both: tuple[Any, Any] = (T.float32(1), T.float32(0))
    slot = row * (matrix.inputs // matrix.group) + column // matrix.group
    if matrix.scale_words == 1:
        native = loops.schedule.half
        both = halves.low(scales[slot], native), halves.high(scales[slot], native)
    elif matrix.scale_words == 2:
        both = halves.as_float(scales[slot * 2]), halves.as_float(scales[slot * 2 + 1])
    T.buffer_store(scale, both[0], [0])
    T.buffer_store(scale, both[1], [1])


def element(loops: Loops, matrix: Matrix, word: Any, index: Any, scale: Any, second: Any) -> Any:
    """The number at place ``index`` of a word."""
    if not isinstance(matrix.storage, GroupScheme):
        return _float(loops, matrix, word, index)
    if matrix.storage.offset == "minimum":
        return _code(matrix, word, index) * scale + second
    return (_code(matrix, word, index) - second) * scale


def sum_inputs(matrix: Matrix, sums: Any, inputs: Any, words: int) -> None:
    """Add up the inputs of each of some words: what minimums are multiplied with.

    Once for all rows; weights without minimums need no sums.
    """
    for word in range(words if has_minimums(matrix) else 0):
        first = word * matrix.per_word
        parts = [T.Cast("float32", inputs[first + j]) for j in range(matrix.per_word)]
        T.buffer_store(sums, _sum(parts), [word])


def has_minimums(matrix: Matrix) -> bool:
    """Whether a number is ``scale * code + minimum``."""
    return isinstance(matrix.storage, GroupScheme) and matrix.storage.offset == "minimum"


def dot(
    loops: Loops,
    matrix: Matrix,
    word: Any,
    scale: Any,
    second: Any,
    inputs: Any,
    first: Any,
    total: Any,
) -> Any:
    """The product of a word's numbers and as many inputs, the scale taken out of the sum.

    ``total`` is what :func:`sum_inputs` found of these inputs.
    """
    x = [inputs[first + j] for j in range(matrix.per_word)]
    if not isinstance(matrix.storage, GroupScheme):
        return _sum([_float(loops, matrix, word, j) * x[j] for j in range(matrix.per_word)])
    if in_halves(loops, matrix):
        return _dot_halves(matrix, word, scale, second, x, total)
    if has_minimums(matrix):
        codes = _sum([_code(matrix, word, j) * x[j] for j in range(matrix.per_word)])
        return codes * scale + total * second
    return _sum([(_code(matrix, word, j) - second) * x[j] for j in range(matrix.per_word)]) * scale


def _dot_halves(
    matrix: Matrix, word: Any, scale: Any, second: Any, x: list[Any], total: Any
) -> Any:
    """The same in fp16: codes about zero and below one, so that sums stay small and exact."""
    most = 1 << matrix.bits
    share = T.float16(1 / most)
    middle = T.float16(0.5)
    if not has_minimums(matrix):
        middle = T.Cast("float16", second * T.float32(1 / most))
    codes = [_code(matrix, word, j, "float16") * share - middle for j in range(matrix.per_word)]
    product = T.Cast("float32", _sum([code * one for code, one in zip(codes, x, strict=True)]))
    product = product * (scale * T.float32(most))
    if not has_minimums(matrix):
        return product
    return product + total * (second + scale * T.float32(most / 2))


def _sum(terms: list[Any]) -> Any:
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total
