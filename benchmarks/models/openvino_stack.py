"""OpenVINO models of decoder layers with random 4-bit weights, in the form that NNCF writes.

Hidden states in, hidden states out. Embedding, head, rotary embedding and the writing of a cache
are left out, all in OpenVINO's favour.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness.files import make_once
from benchmarks.harness.shapes import SHAPES, Shape
from benchmarks.models.random_weights import random_bytes, scale


def openvino_stack(cache: Path, shape_name: str, group: int) -> Path:
    """A folder in the cache with ``model.xml``: signed 4-bit weights, fp16 scales of ``group``."""
    path = cache / f"{shape_name}-openvino-g{group}"

    def make(folder: Path) -> None:
        import openvino

        folder.mkdir()
        model = _model(SHAPES[shape_name], group)
        openvino.save_model(model, folder / "model.xml", compress_to_fp16=False)

    return make_once(path, make)


def _model(shape: Shape, group: int) -> Any:
    import openvino
    from openvino import opset13 as op

    def constant(values: Any, kind: Any = np.float32) -> Any:
        return op.constant(np.array(values, kind))

    def matmul(name: str, x: Any, outputs: int, inputs: int) -> Any:
        groups = inputs // group
        codes = random_bytes(name, 0, outputs * inputs // 2)
        packed = openvino.Tensor(openvino.Type.i4, [outputs, groups, group])
        packed.data[:] = codes.view(packed.data.dtype).reshape(packed.data.shape)
        scales = np.full((outputs, groups, 1), scale(inputs, 16), np.float16)
        half = op.convert(op.constant(packed), "f16")
        values = op.reshape(
            op.multiply(half, op.constant(scales)), constant([outputs, inputs], np.int64), False
        )
        return op.matmul(x, op.convert(values, "f32"), False, True, name=name)

    def norm(x: Any) -> Any:
        power = op.power(x, constant(2.0))
        mean = op.reduce_mean(power, constant([-1], np.int64), True)
        root = op.sqrt(op.add(mean, constant(1e-6)))
        scaled = op.multiply(x, op.divide(constant(1.0), root))
        return op.multiply(scaled, constant(np.ones((1, 1, shape.hidden))))

    def split(x: Any, heads: int) -> Any:
        four = op.reshape(x, constant([0, 0, heads, shape.head_dim], np.int64), True)
        return op.transpose(four, constant([0, 2, 1, 3], np.int64))

    def repeat(x: Any) -> Any:
        """Each KV head once for every query head of its group."""
        times = shape.heads // shape.kv_heads
        five = op.unsqueeze(x, constant([2], np.int64))
        wide = op.broadcast(five, constant([1, 1, times, 1, 1], np.int64), None, "BIDIRECTIONAL")
        return op.reshape(wide, constant([0, shape.heads, -1, shape.head_dim], np.int64), True)

    query, key = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    x = op.parameter([1, -1, shape.hidden], np.float32, name="hidden")
    hidden: Any = x
    for layer in range(shape.layers):
        name = f"layer{layer}."
        normed = norm(hidden)
        q = split(matmul(name + "q", normed, query, shape.hidden), shape.heads)
        k = repeat(split(matmul(name + "k", normed, key, shape.hidden), shape.kv_heads))
        v = repeat(split(matmul(name + "v", normed, key, shape.hidden), shape.kv_heads))
        heads = op.scaled_dot_product_attention(q, k, v, causal=True)
        joined = op.reshape(
            op.transpose(heads, constant([0, 2, 1, 3], np.int64)),
            constant([0, 0, query], np.int64),
            True,
        )
        hidden = op.add(hidden, matmul(name + "o", joined, shape.hidden, query))
        normed = norm(hidden)
        gate = op.swish(matmul(name + "gate", normed, shape.ffn, shape.hidden))
        gated = op.multiply(gate, matmul(name + "up", normed, shape.ffn, shape.hidden))
        hidden = op.add(hidden, matmul(name + "down", gated, shape.hidden, shape.ffn))
    return openvino.Model([op.result(hidden)], [x], "stack")
