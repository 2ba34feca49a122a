"""Embedding, norms, products, and what is fused into products."""

from __future__ import annotations

import onnx_ir as ir

from arkinfer.backends._steps.facts import Constant, Fact, Ids, Length, Matrix, Scaled, Swished
from arkinfer.backends._steps.lower import Lowering, refuse
from arkinfer.backends._steps.lower_positions import add_lengths, mul_positions
from arkinfer.backends._steps.lower_weights import add_minimums
from arkinfer.backends._steps.plan import Operand, Step, View, WeightRef

_SCALABLE = ("matmul", "embed")


def gather(walk: Lowering, node: ir.Node) -> tuple[Fact, ...]:
    """Rows of the embedding by token id."""
    table = walk.need(node, 0, Matrix, "an embedding")
    walk.need(node, 1, Ids, "the token ids")
    if table.transposed or node.attributes.get_int("axis", 0) != 0:
        refuse(node, "it does not take rows")
    value = node.outputs[0]
    y = View.whole(walk.buffer(str(value.name), table.spec.shape[1]))
    ids = View.whole(walk.token_ids)
    operands: dict[str, Operand] = {"ids": ids, **walk.matrix_operands(table.spec), "y": y}
    walk.emit(Step("embed", operands), value)
    return (y,)


def rms_norm(walk: Lowering, node: ir.Node) -> tuple[Fact, ...]:
    """Root mean square normalization of the last axis."""
    x = walk.need(node, 0, View, "an activation")
    weight = walk.need(node, 1, Matrix, "a norm's weight")
    if weight.spec.shape != (x.columns,) or node.attributes.get_int("axis", -1) not in (-1, 2):
        refuse(node, "it does not normalize the last axis")
    walk.weights.setdefault(weight.spec.name, weight.spec)
    value = node.outputs[0]
    y = View.whole(walk.buffer(str(value.name), x.columns))
    operands: dict[str, Operand] = {"x": x, "weight": WeightRef(weight.spec.name), "y": y}
    epsilon = node.attributes.get_float("epsilon", 1e-5)
    walk.emit(Step("rms_norm", operands, {"epsilon": epsilon}), value)
    return (y,)


def matmul(walk: Lowering, node: ir.Node) -> tuple[Fact, ...]:
    """A projection. Projections of one input write side by side into one buffer."""
    known, factor = walk.fact(node.inputs[0]), 1.0
    if isinstance(known, Scaled):
        factor, known = known.factor, known.view
    weight = walk.need(node, 1, Matrix, "a transposed weight")
    if not isinstance(known, View) or not weight.transposed or len(weight.spec.shape) != 2:
        refuse(node, "it is not the product of an activation and a transposed weight")
    outputs, inputs = weight.spec.shape
    if inputs != known.columns:
        refuse(node, f"{known.columns} columns meet {inputs} inputs of {weight.spec.name}")
    value = node.outputs[0]
    y = _place(walk, node, outputs)
    operands: dict[str, Operand] = {"x": known, **walk.matrix_operands(weight.spec), "y": y}
    step = Step("matmul", operands)
    _scale(step, factor)
    walk.emit(step, value)
    return (y,)


def _place(walk: Lowering, node: ir.Node, outputs: int) -> View:
    value = node.outputs[0]
    if value in walk.groups:
        return walk.groups[value]
    source = node.inputs[0]
    siblings = [] if source is None else [n for n in source.consumers() if n.op_type == "MatMul"]
    widths = [_outputs(n) for n in siblings]
    if len(siblings) < 2 or None in widths:
        return View.whole(walk.buffer(str(value.name), outputs))
    known = [width or 0 for width in widths]
    shared = walk.buffer(f"{value.name}.and_siblings", sum(known))
    column = 0
    for sibling, width in zip(siblings, known, strict=True):
        walk.groups[sibling.outputs[0]] = View(shared, column, width)
        column += width
    return walk.groups[value]


def _outputs(node: ir.Node) -> int | None:
    """The columns that a MatMul with a transposed weight makes, before it is visited."""
    transposed = node.inputs[1]
    producer = None if transposed is None else transposed.producer()
    matrix = None if producer is None else producer.inputs[0]
    while matrix is not None and matrix.shape is None:
        producer = matrix.producer()
        matrix = None if producer is None else producer.inputs[0]
    first = None if matrix is None or matrix.shape is None else matrix.shape[0]
    return first if isinstance(first, int) else None


def split(walk: Lowering, node: ir.Node) -> tuple[Fact, ...]:
    """Columns of an activation."""
    view = walk.need(node, 0, View, "an activation")
    sizes = [int(n) for n in walk.need(node, 1, Constant, "constant sizes").array]
    if node.attributes.get_int("axis", 0) not in (-1, 2) or sum(sizes) != view.columns:
        refuse(node, "it does not divide the last axis")
    starts = [sum(sizes[:i]) for i in range(len(sizes))]
    return tuple(
        View(view.buffer, view.column + start, size)
        for start, size in zip(starts, sizes, strict=True)
    )


def swish(walk: Lowering, node: ir.Node) -> tuple[Fact, ...]:
    """SiLU, which waits for the product that follows."""
    if node.attributes.get_float("alpha", 1.0) != 1.0:
        refuse(node, "alpha is not 1")
    return (Swished(walk.need(node, 0, View, "an activation")),)


def mul(walk: Lowering, node: ir.Node) -> tuple[Fact, ...]:
    """A gate, or a factor that the step before or the product after takes over."""
    positions = mul_positions(walk, node)
    if positions is not None:
        return positions
    pair = [(node.inputs[i], walk.fact(node.inputs[i])) for i in (0, 1)]
    value = node.outputs[0]
    for (source, first), (_, second) in (pair, pair[::-1]):
        if isinstance(first, Swished) and isinstance(second, View):
            if first.gate.columns != second.columns:
                refuse(node, "the gate has another width")
            y = View.whole(walk.buffer(str(value.name), second.columns))
            walk.emit(Step("swiglu", {"gate": first.gate, "up": second, "y": y}), value)
            return (y,)
        factor = second.scalar() if isinstance(second, Constant) else None
        if isinstance(first, View) and factor is not None and source is not None:
            return (_scaled(walk, source, value, first, factor),)
    return refuse(node, "it neither gates nor scales an activation")


def _scaled(walk: Lowering, source: ir.Value, value: ir.Value, view: View, factor: float) -> Fact:
    made = walk.producers.get(source)
    if made is None or len(source.uses()) != 1:
        return Scaled(view, factor)
    step, index = made
    if step.kernel not in _SCALABLE or "residual" in step.operands:
        return Scaled(view, factor)
    _scale(step, factor)
    step.stage = str(value.name)
    walk.producers[value] = (step, index)
    return view


def _scale(step: Step, factor: float) -> None:
    product = step.attributes.get("scale", 1.0) * factor
    if product != 1.0:
        step.attributes["scale"] = product


def add(walk: Lowering, node: ir.Node) -> tuple[Fact, ...]:
    """A residual sum, taken over by the product that makes one addend."""
    minimums = add_minimums(walk, node)
    if minimums is not None:
        return minimums
    if isinstance(walk.fact(node.inputs[0]), Length):
        return add_lengths(walk, node)
    for first, second in ((0, 1), (1, 0)):
        branch, hidden = node.inputs[first], node.inputs[second]
        view, residual = walk.fact(branch), walk.fact(hidden)
        if branch is None or hidden is None or branch not in walk.producers:
            continue
        step, index = walk.producers[branch]
        if (
            step.kernel == "matmul"
            and "residual" not in step.operands
            and len(branch.uses()) == 1
            and isinstance(view, View)
            and isinstance(residual, View)
            and view.columns == residual.columns
            and walk.producers.get(hidden, (None, -1))[1] < index
        ):
            y = step.operands.pop("y")
            step.operands |= {"residual": residual, "y": y}
            value = node.outputs[0]
            step.stage = str(value.name)
            walk.producers[value] = (step, index)
            return (view,)
    return refuse(node, "neither addend is a projection that can take the other over")
