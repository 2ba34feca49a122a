"""Fourth pass: each weight gets the storage that the quantization policy chooses for it."""

from __future__ import annotations

import onnx_ir as ir

from arkinfer.graph.graph import Graph
from arkinfer.passes._context import PassContext
from arkinfer.passes._weights import float_value, set_storage
from arkinfer.quantize import policy


def quantize_weights(graph: Graph, context: PassContext) -> None:
    """Choose by role, which is read off the operators that use a weight.

    Raises:
        InvalidOptionError: an unknown quantization.
        UnsupportedQuantizationError: ``keep`` without quantized tensors.
    """
    quant = context.options.quant
    policy.check(quant, [tensor.storage for tensor in context.tensors.values()])
    roles = {name: _role(graph, float_value(graph, name)) for name in graph.weights}
    for name, spec in list(graph.weights.items()):
        storage = policy.choose(quant, roles[name], spec.storage, spec.shape[-1])
        set_storage(graph, name, storage)


def _role(graph: Graph, value: ir.Value) -> policy.Role:
    users = value.consumers()
    kinds = {user.op_type for user in users}
    if kinds == {"RMSNormalization"}:
        return "norm"
    if kinds == {"Gather"}:
        return "embedding"
    logits = graph.model.graph.outputs[0]
    products = [user for node in users for user in node.outputs[0].consumers()]
    # A tied embedding is the head too, and that is the harder task.
    if any(product.outputs[0] is logits for product in products):
        return "head"
    return "projection"
