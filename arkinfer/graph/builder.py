"""Writing graphs and function bodies one operator per call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

OPSET = 24
IR_VERSION = 12
"""onnxruntime 1.31 reads IR versions up to 13; opset 24 needs 12."""

DOMAIN = "ai.arkinfer"
DOMAIN_VERSION = 1

OPSET_IMPORTS = {"": OPSET, DOMAIN: DOMAIN_VERSION}

Dim = int | str


class Builder:
    """Collects nodes in execution order.

    Constants become initializers of the graph; in a function body, where ONNX has no
    initializers, they become ``Constant`` nodes.
    """

    def __init__(self, *, function: bool = False) -> None:
        self.inputs: list[ir.Value] = []
        self.initializers: list[ir.Value] = []
        self.nodes: list[ir.Node] = []
        self._function = function
        self._constants: dict[tuple[str, tuple[int, ...], bytes], ir.Value] = {}
        self._names = 0

    def input(
        self, name: str, dtype: ir.DataType | None = None, shape: Sequence[Dim] | None = None
    ) -> ir.Value:
        """Declare an input; function inputs have neither type nor shape."""
        value = ir.Value(
            name=name,
            type=None if dtype is None else ir.TensorType(dtype),
            shape=None if shape is None else ir.Shape(shape),
        )
        self.inputs.append(value)
        return value

    def op(
        self,
        op_type: str,
        *inputs: ir.Value | None,
        name: str | None = None,
        domain: str = "",
        **attributes: Any,
    ) -> ir.Value:
        """Append a node with one output, called ``name``, and return that output."""
        return self.op_n(op_type, 1, *inputs, names=[name], domain=domain, **attributes)[0]

    def op_n(
        self,
        op_type: str,
        outputs: int,
        *inputs: ir.Value | None,
        names: Sequence[str | None] | None = None,
        domain: str = "",
        **attributes: Any,
    ) -> tuple[ir.Value, ...]:
        """Append a node with several outputs. Attributes may be :class:`ir.RefAttr`."""
        given = names if names is not None else [None] * outputs
        values = [ir.Value(name=n if n is not None else self._fresh(op_type)) for n in given]
        node = ir.node(
            op_type,
            inputs,
            attributes,
            domain=domain,
            outputs=values,
            name=f"{op_type}:{values[0].name}",
        )
        self.nodes.append(node)
        return tuple(values)

    def constant(self, array: NDArray[Any], name: str | None = None) -> ir.Value:
        """A constant tensor; equal unnamed constants are one value."""
        key = (str(array.dtype), array.shape, array.tobytes())
        if name is None and key in self._constants:
            return self._constants[key]
        label = name if name is not None else self._fresh("Constant")
        tensor = ir.tensor(np.array(array), name=label)
        if self._function:
            value = self.op("Constant", name=label, value=tensor)
        else:
            value = ir.Value(
                name=label,
                type=ir.TensorType(tensor.dtype),
                shape=ir.Shape(array.shape),
                const_value=tensor,
            )
            self.initializers.append(value)
        if name is None:
            self._constants[key] = value
        return value

    def ints(self, *values: int) -> ir.Value:
        """An INT64 vector."""
        return self.constant(np.array(values, np.int64))

    def integer(self, value: int) -> ir.Value:
        """An INT64 scalar."""
        return self.constant(np.array(value, np.int64))

    def real(self, value: float) -> ir.Value:
        """A FLOAT scalar."""
        return self.constant(np.array(value, np.float32))

    def text(self, value: str) -> ir.Value:
        """In a function body: a STRING scalar."""
        return self.op("Constant", value_string=value)

    def dimension(self, value: ir.Value, axis: int) -> ir.Value:
        """The length of one axis as an INT64 scalar."""
        shape = self.op("Shape", value, start=axis, end=axis + 1)
        return self.op("Squeeze", shape, self.ints(0))

    def vector(self, *dimensions: ir.Value | int) -> ir.Value:
        """Scalars joined to an INT64 vector, as ``Reshape`` and ``Expand`` want it."""
        parts = [
            self.ints(d) if isinstance(d, int) else self.op("Reshape", d, self.ints(1))
            for d in dimensions
        ]
        return self.op("Concat", *parts, axis=0)

    def attribute(self, name: str, kind: ir.AttributeType) -> ir.Value:
        """In a function body: the function's own attribute as a scalar."""
        field = {
            ir.AttributeType.INT: "value_int",
            ir.AttributeType.FLOAT: "value_float",
            ir.AttributeType.STRING: "value_string",
        }[kind]
        reference: dict[str, Any] = {field: ir.RefAttr(field, name, kind)}
        return self.op("Constant", **reference)

    def _fresh(self, op_type: str) -> str:
        self._names += 1
        return f"{op_type.lower()}_{self._names}"
