"""Lengths and positions on their way to the rotary table. None of them needs a step."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from arkinfer.backends._steps.facts import (
    Angles,
    CacheFact,
    Constant,
    Fact,
    Frequencies,
    Ids,
    Length,
    LongerThan,
    Positions,
    Waves,
)
from arkinfer.backends._steps.lower import Lowering, refuse


def shape(walk: Lowering, node: ir.Node) -> tuple[Fact, ...]:
    """Tokens of the input ids, or past tokens of a cache."""
    start, end = node.attributes.get_int("start", 0), node.attributes.get_int("end", 99)
    known = walk.fact(node.inputs[0])
    if isinstance(known, Ids) and (start, end) == (1, 2):
        return (Length("tokens"),)
    if isinstance(known, CacheFact) and (start, end) == (2, 3):
        return (Length("total" if known.appended else "past"),)
    return refuse(node, "only the number of tokens and the past length are known")


def squeeze(walk: Lowering, node: ir.Node) -> tuple[Fact, ...]:
    """A vector of one length becomes a scalar."""
    return (walk.need(node, 0, Length, "a length"),)


def add_lengths(walk: Lowering, node: ir.Node) -> tuple[Fact, ...]:
    """past + tokens = total."""
    parts = {walk.need(node, index, Length, "a length").what for index in (0, 1)}
    if parts != {"past", "tokens"}:
        refuse(node, f"the sum of the lengths {' and '.join(sorted(parts))} is not used")
    return (Length("total"),)


def range_(walk: Lowering, node: ir.Node) -> tuple[Fact, ...]:
    """past, past + 1, ... total - 1."""
    start, stop = (walk.need(node, index, Length, "a length") for index in (0, 1))
    step = walk.need(node, 2, Constant, "a constant").scalar()
    if (start.what, stop.what, step) != ("past", "total", 1.0):
        refuse(node, f"a range from {start.what} to {stop.what} in steps of {step}")
    return (Positions(),)


def greater(walk: Lowering, node: ir.Node) -> tuple[Fact, ...]:
    """Whether the sequence is longer than the original maximum of LongRoPE."""
    length = walk.need(node, 0, Length, "a length")
    limit = walk.need(node, 1, Constant, "a constant").scalar()
    if length.what != "total" or limit is None:
        refuse(node, "only the total length is compared, with a constant")
    return (LongerThan(int(limit)),)


def where(walk: Lowering, node: ir.Node) -> tuple[Fact, ...]:
    """Long or short inverse frequencies."""
    condition = walk.need(node, 0, LongerThan, "a comparison of the length")
    long, short = (_frequencies(walk, node, index) for index in (1, 2))
    return (Frequencies(short, long, condition.limit),)


def _frequencies(walk: Lowering, node: ir.Node, index: int) -> NDArray[np.float32]:
    array = walk.need(node, index, Constant, "a constant").array
    if array.dtype != np.float32 or array.size != max(array.shape, default=0):
        refuse(node, f"input {index} is not a vector of float32 frequencies")
    return array.reshape(-1)


def mul_positions(walk: Lowering, node: ir.Node) -> tuple[Fact, ...] | None:
    """Positions times frequencies, or waves times a factor; None for other products."""
    for first, second in ((0, 1), (1, 0)):
        known, other = walk.fact(node.inputs[first]), walk.fact(node.inputs[second])
        if isinstance(known, Positions):
            if isinstance(other, Frequencies):
                return (Angles(other),)
            array = _frequencies(walk, node, second)
            return (Angles(Frequencies(array, array)),)
        if isinstance(known, Waves) and isinstance(other, Constant):
            factor = other.scalar()
            if factor is None:
                refuse(node, "the factor of cosines or sines is not one number")
            return (Waves(known.part, known.frequencies, known.factor * factor),)
    return None


def cos(walk: Lowering, node: ir.Node) -> tuple[Fact, ...]:
    """Cosines of the angles."""
    return (Waves("cos", walk.need(node, 0, Angles, "angles of positions").frequencies),)


def sin(walk: Lowering, node: ir.Node) -> tuple[Fact, ...]:
    """Sines of the angles."""
    return (Waves("sin", walk.need(node, 0, Angles, "angles of positions").frequencies),)
