"""Second pass: what depends on constants alone is computed now."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator

from arkinfer.graph.builder import IR_VERSION, OPSET
from arkinfer.graph.graph import Graph
from arkinfer.passes._context import PassContext

_LARGEST = 1 << 18
"""Elements of a result; the graph file holds results, and no weights."""


def fold_constants(graph: Graph, context: PassContext) -> None:
    """Replace nodes whose inputs are all constants by their results, under the same names."""
    body = graph.model.graph
    outputs = set(body.outputs)
    # Filling nodes are left: their results are larger than what describes them.
    for node in list(body):
        if node.domain or node.op_type == "ConstantOfShape" or len(node.outputs) != 1:
            continue
        result = node.outputs[0]
        if result in outputs or not node.inputs:
            continue
        constants = [value.const_value if value is not None else None for value in node.inputs]
        if any(constant is None for constant in constants):
            continue
        array = _evaluate(node)
        if array.size > _LARGEST:
            continue
        name = str(result.name)
        tensor = ir.tensor(array, name=name)
        folded = ir.Value(
            name=name,
            type=ir.TensorType(tensor.dtype),
            shape=ir.Shape(array.shape),
            const_value=tensor,
        )
        ir.convenience.replace_all_uses_with(result, folded)
        body.remove(node, safe=True)
        body.register_initializer(folded)
    for name, value in list(body.initializers.items()):
        if not value.uses() and value not in outputs:
            del body.initializers[name]


def _evaluate(node: ir.Node) -> NDArray[Any]:
    """The result of a node whose inputs are all constants."""
    feeds: dict[str, NDArray[Any]] = {
        str(value.name): value.const_value.numpy()
        for value in node.inputs
        if value is not None and value.const_value is not None
    }
    graph = onnx.helper.make_graph(
        [ir.to_proto(node)],
        "constant",
        [
            onnx.helper.make_tensor_value_info(
                name, onnx.helper.np_dtype_to_tensor_dtype(array.dtype), array.shape
            )
            for name, array in feeds.items()
        ],
        [onnx.helper.make_empty_tensor_value_info(str(node.outputs[0].name))],
    )
    model = onnx.helper.make_model(
        graph, opset_imports=[onnx.helper.make_opsetid("", OPSET)], ir_version=IR_VERSION
    )
    results: Any = ReferenceEvaluator(model).run(None, feeds)
    return np.asarray(results[0])
