"""Weights on their way to a product, and the reshaping of activations. No steps."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from arkinfer.backends._steps.facts import (
    Constant,
    Fact,
    Heads,
    Matrix,
    Part,
    Positions,
    Unshifted,
)
from arkinfer.backends._steps.lower import Lowering, refuse
from arkinfer.backends._steps.plan import View
from arkinfer.quantize.schemes import GroupScheme


def constant(walk: Lowering, node: ir.Node) -> tuple[Fact, ...]:
    """A tensor in a node."""
    attribute = node.attributes.get("value")
    if attribute is None:
        refuse(node, "only tensor constants are read")
    return (Constant(attribute.as_tensor().numpy()),)


def constant_of_shape(walk: Lowering, node: ir.Node) -> tuple[Fact, ...]:
    """One number in a shape, held once."""
    attribute = node.attributes.get("value")
    value = np.float32(0) if attribute is None else attribute.as_tensor().numpy().reshape(-1)[0]
    sizes = walk.need(node, 0, Constant, "a constant shape").array
    return (Constant(np.broadcast_to(value, [int(n) for n in sizes])),)


def cast(walk: Lowering, node: ir.Node) -> tuple[Fact, ...]:
    """Types do not matter to positions and integer constants; float weights become FLOAT."""
    known = walk.fact(node.inputs[0])
    to = ir.DataType(node.attributes.get_int("to", 0))
    if isinstance(known, Positions):
        return (known,)
    if isinstance(known, Constant) and np.issubdtype(known.array.dtype, np.integer):
        return (known,)
    if isinstance(known, Part) and known.part == "values" and to == ir.DataType.FLOAT:
        return (Matrix(known.spec),)
    return refuse(node, f"a cast to {to.name} of something else than a weight or positions")


def unsqueeze(walk: Lowering, node: ir.Node) -> tuple[Fact, ...]:
    """Axes of length 1 do not matter to positions and to minimums."""
    return (_positions_or_minimums(walk, node),)


def expand(walk: Lowering, node: ir.Node) -> tuple[Fact, ...]:
    """The minimum of a group stands for each of its inputs."""
    return (_positions_or_minimums(walk, node),)


def _positions_or_minimums(walk: Lowering, node: ir.Node) -> Fact:
    known = walk.fact(node.inputs[0])
    if isinstance(known, Positions) or (isinstance(known, Part) and known.part == "minimums"):
        return known
    refuse(node, "only positions and the minimums of groups are shaped like this")


def dequantize(walk: Lowering, node: ir.Node) -> tuple[Fact, ...]:
    """Codes, scales and zero points become a weight."""
    codes = walk.need(node, 0, Part, "codes of a weight")
    scales = walk.need(node, 1, Part, "scales of a weight")
    spec, scheme = codes.spec, codes.spec.storage
    if (codes.part, scales.part) != ("codes", "scales") or scales.spec != spec:
        refuse(node, "codes and scales are not those of one weight")
    if not isinstance(scheme, GroupScheme):
        refuse(node, f"{spec.name} is not stored in groups")
    layout = node.attributes.get_int("axis", 1), node.attributes.get_int("block_size", 0)
    if layout != (1, scheme.group_size):
        refuse(node, f"axis and block_size are {layout} for {scheme}")
    given = len(node.inputs) > 2 and node.inputs[2] is not None
    if scheme.offset == "minimum" and not given:
        return (Unshifted(spec),)
    zeros = walk.fact(node.inputs[2]) if given else None
    if scheme.offset == "zero_point" and zeros == Part(spec, "zero_points"):
        return (Matrix(spec),)
    if scheme.offset == "symmetric" and isinstance(zeros, Constant):
        # A view of one number repeated has as many distinct elements as it has strides.
        array = zeros.array if any(zeros.array.strides) else zeros.array.reshape(-1)[:1]
        if np.all(array.astype(np.int64) == scheme.middle):
            return (Matrix(spec),)
    return refuse(node, f"the zero points are not those of {scheme}")


def add_minimums(walk: Lowering, node: ir.Node) -> tuple[Fact, ...] | None:
    """A dequantized weight plus its minimums; None for other sums."""
    pair = [walk.fact(value) for value in node.inputs]
    for first, second in (pair, pair[::-1]):
        if isinstance(first, Unshifted):
            if second != Part(first.spec, "minimums"):
                refuse(node, f"the addend is not the minimums of {first.spec.name}")
            return (Matrix(first.spec),)
    return None


def transpose(walk: Lowering, node: ir.Node) -> tuple[Fact, ...]:
    """A weight for MatMul, or heads in front of tokens and back."""
    known = walk.fact(node.inputs[0])
    order = tuple(node.attributes.get_ints("perm", ()))
    if isinstance(known, Matrix) and order in ((1, 0), ()):
        return (Matrix(known.spec, not known.transposed),)
    if isinstance(known, Heads) and order == (0, 2, 1, 3):
        return (Heads(known.view, known.heads, not known.heads_first),)
    return refuse(node, "only weights, and heads with tokens, are transposed")


def reshape(walk: Lowering, node: ir.Node) -> tuple[Fact, ...]:
    """Columns divided in heads and joined again; the minimums of groups laid out."""
    known = walk.fact(node.inputs[0])
    if isinstance(known, Part) and known.part == "minimums":
        return (known,)
    target = [int(n) for n in walk.need(node, 1, Constant, "a constant shape").array]
    if isinstance(known, View) and len(target) == 4 and target[0] in (0, 1):
        heads, size = target[2], target[3]
        if heads > 0 and size in (-1, known.columns // heads) and known.columns % heads == 0:
            return (Heads(known, heads),)
    if isinstance(known, Heads) and not known.heads_first and len(target) == 3:
        if target[2] in (-1, known.view.columns):
            return (known.view,)
    return refuse(node, f"the shape {target} neither divides columns in heads nor joins them")
