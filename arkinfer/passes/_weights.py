"""How a weight appears in the graph: its inputs, and the nodes that turn them into FLOAT.

| storage | nodes |
|---|---|
| f32 | none: the input is the value |
| f16, bf16 | ``Cast`` |
| symmetric | ``DequantizeLinear`` whose zero points are all the scheme's middle |
| zero_point | ``DequantizeLinear`` |
| minimum | ``DequantizeLinear`` without zero points, plus the minimums of the groups |

The FLOAT value is called ``NAME.float`` unless it is the input ``NAME`` itself. Scales
and minimums are FLOAT inputs, codes and zero points UINT4 or UINT8. Ternary codes are UINT4
too, with zero points of 1: onnxruntime has no kernels for ONNX's 2-bit types.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import onnx_ir as ir

from arkinfer.checkpoint import FloatType
from arkinfer.graph.builder import Builder
from arkinfer.graph.graph import Graph, WeightSpec, input_names
from arkinfer.quantize.schemes import GroupScheme

_FLOAT = ir.DataType.FLOAT
_DTYPES: dict[str, ir.DataType] = {
    "f32": _FLOAT,
    "f16": ir.DataType.FLOAT16,
    "bf16": ir.DataType.BFLOAT16,
}
_CODES = {2: ir.DataType.UINT4, 4: ir.DataType.UINT4, 8: ir.DataType.UINT8}


def float_value(graph: Graph, name: str) -> ir.Value:
    """The FLOAT value of a weight."""
    if graph.weights[name].storage == "f32":
        return next(value for value in graph.model.graph.inputs if value.name == name)
    label = f"{name}.float"
    return next(n.outputs[0] for n in graph.model.graph if n.outputs[0].name == label)


def set_storage(graph: Graph, name: str, storage: FloatType | GroupScheme) -> None:
    """Store a weight in another way; whoever uses it does not notice."""
    spec = graph.weights[name]
    if spec.storage == storage:
        return
    old = float_value(graph, name)
    new = dataclasses.replace(spec, storage=storage)
    ir.convenience.replace_all_uses_with(old, add_weight(graph, new, old))
    remove_weight(graph, spec, old)
    graph.weights[name] = new


def add_weight(graph: Graph, spec: WeightSpec, before: ir.Value) -> ir.Value:
    """Add a weight's inputs and nodes; return its FLOAT value.

    The inputs take their place in front of those that make the FLOAT value ``before``.
    ``graph.weights`` is left to the caller.
    """
    builder = Builder()
    value = _express(builder, spec)
    body = graph.model.graph
    first = _inputs_behind(before)[0]
    at = next(i for i, item in enumerate(body.inputs) if item is first)
    for offset, item in enumerate(builder.inputs):
        body.inputs.insert(at + offset, item)
    for constant in builder.initializers:
        constant.name = f"{spec.name}.{constant.name}"
        body.register_initializer(constant)
    for node in builder.nodes:
        for output in node.outputs:
            if output is not value:
                output.name = f"{spec.name}.{output.name}"
        node.name = f"{node.op_type}:{node.outputs[0].name}"
    if builder.nodes:
        body.insert_before(body[0], builder.nodes)
    return value


def remove_weight(graph: Graph, spec: WeightSpec, value: ir.Value) -> None:
    """Remove the inputs and nodes behind a FLOAT value that nothing uses any more.

    ``graph.weights`` is left to the caller.
    """
    body = graph.model.graph
    _remove_unused(body, value)
    names = set(input_names(spec))
    gone = [item for item in body.inputs if item.name in names and not item.uses()]
    for item in gone:
        body.inputs.remove(item)


def _inputs_behind(value: ir.Value) -> list[ir.Value]:
    node = value.producer()
    if node is None:
        return [] if value.is_initializer() else [value]
    return [found for item in node.inputs if item is not None for found in _inputs_behind(item)]


def _remove_unused(body: ir.Graph, value: ir.Value) -> None:
    node = value.producer()
    if value.uses() or node is None:
        if value.is_initializer() and not value.uses():
            body.initializers.pop(str(value.name))
        return
    behind = [item for item in node.inputs if item is not None]
    body.remove(node, safe=True)
    for item in behind:
        _remove_unused(body, item)


def _express(b: Builder, spec: WeightSpec) -> ir.Value:
    storage, label = spec.storage, f"{spec.name}.float"
    if not isinstance(storage, GroupScheme):
        values = b.input(spec.name, _DTYPES[storage], spec.shape)
        return values if storage == "f32" else b.op("Cast", values, name=label, to=int(_FLOAT))
    outputs, inputs = spec.shape
    groups = inputs // storage.group_size
    code_type = _CODES[storage.bits]
    codes = b.input(f"{spec.name}.codes", code_type, spec.shape)
    scales = b.input(f"{spec.name}.scales", _FLOAT, [outputs, groups])
    layout: dict[str, Any] = {"axis": 1, "block_size": storage.group_size}
    if storage.offset == "zero_point":
        zeros = b.input(f"{spec.name}.zero_points", code_type, [outputs, groups])
        return b.op("DequantizeLinear", codes, scales, zeros, name=label, **layout)
    if storage.offset == "symmetric":
        middle = ir.tensor(np.array([storage.middle], np.uint8))
        zeros = b.op("ConstantOfShape", b.ints(outputs, groups), value=middle)
        if code_type == ir.DataType.UINT4:
            zeros = b.op("Cast", zeros, to=int(code_type))
        return b.op("DequantizeLinear", codes, scales, zeros, name=label, **layout)
    minimums = b.input(f"{spec.name}.minimums", _FLOAT, [outputs, groups])
    scaled = b.op("DequantizeLinear", codes, scales, **layout)
    column = b.op("Unsqueeze", minimums, b.ints(2))
    spread = b.op("Expand", column, b.ints(outputs, groups, storage.group_size))
    return b.op("Add", scaled, b.op("Reshape", spread, b.ints(outputs, inputs)), name=label)
