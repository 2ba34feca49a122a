"""ONNX stacks of decoder layers with random 4-bit weights, in onnxruntime's own fused operators.

Hidden states in, hidden states out: embedding and head are left out, in onnxruntime's favour.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness.files import make_once
from benchmarks.harness.shapes import SHAPES, Shape
from benchmarks.models.random_weights import random_bytes, scale

_DOMAIN = "com.microsoft"
_POSITIONS = 131072


def onnx_stack(cache: Path, shape_name: str, block: int) -> Path:
    """A folder in the cache with ``model.onnx``: MatMulNBits of ``block`` weights per scale."""
    shape = SHAPES[shape_name]
    path = cache / f"{shape_name}-onnx-b{block}"
    return make_once(path, lambda folder: _Writer(folder, shape, block).write())


class _Writer:
    def __init__(self, folder: Path, shape: Shape, block: int) -> None:
        folder.mkdir()
        self._folder, self._shape, self._block = folder, shape, block
        self._nodes: list[Any] = []
        self._initializers: list[Any] = []
        self._data = (folder / "model.data").open("wb")

    def write(self) -> None:
        import onnx
        from onnx import TensorProto, helper

        shape = self._shape
        value = helper.make_tensor_value_info
        cache: list[str | int | None] = [1, shape.kv_heads, "capacity", shape.head_dim]
        inputs = [
            value("hidden", TensorProto.FLOAT, [1, "tokens", shape.hidden]),
            value("last", TensorProto.INT32, [1]),
            value("total", TensorProto.INT32, []),
        ]
        outputs = [value("result", TensorProto.FLOAT, [1, "tokens", shape.hidden])]
        angles = np.arange(_POSITIONS)[:, None] / 10000.0 ** (
            np.arange(shape.head_dim // 2) / (shape.head_dim // 2)
        )
        self._tensor("cosines", np.cos(angles).astype(np.float32))
        self._tensor("sines", np.sin(angles).astype(np.float32))
        self._tensor("norm", np.ones(shape.hidden, np.float32))
        self._node("SimplifiedLayerNormalization", ["hidden", "norm"], ["normed"], None, axis=-1)
        residual, normed = "hidden", "normed"
        for layer in range(shape.layers):
            for kind in ("key", "value"):
                inputs.append(value(f"past.{layer}.{kind}", TensorProto.FLOAT, cache))
                outputs.append(value(f"present.{layer}.{kind}", TensorProto.FLOAT, cache))
            residual, normed = self._layer(layer, residual, normed)
        self._node("Add", [residual, normed], ["result"], "")
        graph = helper.make_graph(self._nodes, "stack", inputs, outputs, self._initializers)
        imports = [helper.make_opsetid("", 21), helper.make_opsetid(_DOMAIN, 1)]
        model = helper.make_model(graph, opset_imports=imports, ir_version=10)
        self._data.close()
        onnx.save(model, self._folder / "model.onnx")

    def _layer(self, layer: int, residual: str, normed: str) -> tuple[str, str]:
        shape, name = self._shape, f"layer{layer}."
        query, key = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
        self._matmul(name + "qkv", normed, query + 2 * key, shape.hidden)
        caches = [f"past.{layer}.key", f"past.{layer}.value"]
        self._node(
            "GroupQueryAttention",
            [name + "qkv", "", "", *caches, "last", "total", "cosines", "sines"],
            [name + "heads", f"present.{layer}.key", f"present.{layer}.value"],
            num_heads=shape.heads,
            kv_num_heads=shape.kv_heads,
            do_rotary=1,
        )
        self._matmul(name + "attended", name + "heads", shape.hidden, query)
        self._norm(name + "middle", residual, name + "attended")
        self._matmul(name + "gate", name + "middle.normed", shape.ffn, shape.hidden)
        self._matmul(name + "up", name + "middle.normed", shape.ffn, shape.hidden)
        self._node("QuickGelu", [name + "gate"], [name + "silu"], alpha=1.0)
        self._node("Mul", [name + "silu", name + "up"], [name + "gated"], "")
        self._matmul(name + "down", name + "gated", shape.hidden, shape.ffn)
        self._norm(name + "end", name + "middle.sum", name + "down")
        return name + "end.sum", name + "end.normed"

    def _norm(self, name: str, residual: str, branch: str) -> None:
        """The sum of a residual and its branch, and that normed, in one operator."""
        self._node(
            "SkipSimplifiedLayerNormalization",
            [residual, branch, "norm"],
            [name + ".normed", "", "", name + ".sum"],
            epsilon=1e-6,
        )

    def _matmul(self, name: str, x: str, outputs: int, inputs: int) -> None:
        groups = inputs // self._block
        codes = random_bytes(name, 0, outputs * inputs // 2)
        self._tensor(name + ".codes", codes.reshape(outputs, groups, self._block // 2))
        self._tensor(name + ".scales", np.full((outputs, groups), scale(inputs, 16), np.float32))
        self._node(
            "MatMulNBits",
            [x, name + ".codes", name + ".scales"],
            [name],
            N=outputs,
            K=inputs,
            bits=4,
            block_size=self._block,
            accuracy_level=4,
        )

    def _node(
        self,
        kind: str,
        inputs: list[str],
        outputs: list[str],
        domain: str | None = _DOMAIN,
        **attributes: Any,
    ) -> None:
        from onnx import helper

        self._nodes.append(
            helper.make_node(kind, inputs, outputs, domain=domain or "", **attributes)
        )

    def _tensor(self, name: str, array: Any) -> None:
        """An initializer whose bytes lie in the data file."""
        import onnx
        from onnx import helper

        self._data.write(bytes(-self._data.tell() % 4096))
        tensor = onnx.TensorProto(
            name=name,
            data_type=helper.np_dtype_to_tensor_dtype(array.dtype),
            dims=array.shape,
            data_location=onnx.TensorProto.EXTERNAL,
        )
        for key, text in (
            ("location", "model.data"),
            ("offset", str(self._data.tell())),
            ("length", str(array.nbytes)),
        ):
            entry = tensor.external_data.add()
            entry.key, entry.value = key, text
        self._data.write(array.tobytes())
        self._initializers.append(tensor)
