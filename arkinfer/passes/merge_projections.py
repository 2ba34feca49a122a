"""Third pass: projections of the same input become one matrix and one MatMul."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from arkinfer.graph.builder import Builder
from arkinfer.graph.graph import Graph, WeightSpec
from arkinfer.passes._context import PassContext
from arkinfer.passes._weights import add_weight, float_value, remove_weight

_RULES: tuple[tuple[tuple[str, ...], str], ...] = (
    (("q", "k", "v"), "qkv"),
    (("gate", "up"), "gate_up"),
)


def merge_projections(graph: Graph, context: PassContext) -> None:
    """Merge q, k and v into qkv, gate and up into gate_up, where they are stored alike.

    The merged weight takes the place of ``…q_proj.weight`` as ``…qkv_proj.weight``; its
    rows are the rows of its sources in order. A ``Split`` gives back the old values.
    """
    for parts, merged in _RULES:
        ending = f".{parts[0]}_proj.weight"
        for first in [name for name in graph.weights if name.endswith(ending)]:
            prefix = first.removesuffix(ending)
            names = [f"{prefix}.{part}_proj.weight" for part in parts]
            if all(name in graph.weights for name in names):
                _merge(graph, names, f"{prefix}.{merged}_proj.weight", parts[0], merged)


def _merge(graph: Graph, names: list[str], new_name: str, part: str, merged: str) -> None:
    specs = [graph.weights[name] for name in names]
    values = [float_value(graph, name) for name in names]
    products = [_product(value) for value in values]
    found = [product for product in products if product is not None]
    inputs = {product.inputs[0] for product in found}
    alike = len({(str(s.storage), s.storage, s.shape[1]) for s in specs}) == 1
    if len(found) != len(names) or len(inputs) != 1 or not alike:
        return
    rows = [spec.shape[0] for spec in specs]
    sources = tuple(source for spec in specs for source in spec.sources)
    shape = (sum(rows), specs[0].shape[1])
    spec = WeightSpec(new_name, sources, shape, specs[0].storage)
    matrix = add_weight(graph, spec, values[0])
    _rewire(graph, matrix, found, rows, part, merged)
    for old, value in zip(specs, values, strict=True):
        remove_weight(graph, old, value)
    _replace_specs(graph, names, spec)


def _replace_specs(graph: Graph, names: list[str], spec: WeightSpec) -> None:
    """Put the merged weight where the first of its parts was."""
    entries = list(graph.weights.items())
    graph.weights.clear()
    for name, old in entries:
        if name == names[0]:
            graph.weights[spec.name] = spec
        elif name not in names:
            graph.weights[name] = old


def _product(value: ir.Value) -> ir.Node | None:
    """The MatMul of a weight that is used once, transposed, as its second operand."""
    node = _only_user(value, "Transpose")
    product = None if node is None else _only_user(node.outputs[0], "MatMul")
    if node is None or product is None or product.inputs[1] is not node.outputs[0]:
        return None
    return product


def _only_user(value: ir.Value, op_type: str) -> ir.Node | None:
    users = value.consumers()
    return users[0] if len(users) == 1 and users[0].op_type == op_type else None


def _rewire(
    graph: Graph, matrix: ir.Value, products: list[ir.Node], rows: list[int], part: str, merged: str
) -> None:
    body = graph.model.graph
    old = [product.outputs[0] for product in products]
    stage = str(old[0].name).removesuffix(f".{part}")
    b = Builder()
    transposed = b.op("Transpose", matrix, name=f"{stage}.{merged}.transposed", perm=[1, 0])
    product = b.op("MatMul", products[0].inputs[0], transposed, name=f"{stage}.{merged}")
    names = [value.name for value in old]
    sizes = b.constant(np.array(rows, np.int64), name=f"{stage}.{merged}.rows")
    new = b.op_n("Split", len(rows), product, sizes, names=names, axis=-1)
    body.insert_before(products[0], b.nodes)
    body.register_initializer(sizes)
    for before, after in zip(old, new, strict=True):
        ir.convenience.replace_all_uses_with(before, after)
    for node in products:
        transposing = node.inputs[1]
        body.remove(node, safe=True)
        if transposing is not None and (producer := transposing.producer()) is not None:
            body.remove(producer, safe=True)
