"""The table of operators that the cpu backend lowers."""

from __future__ import annotations

from arkinfer.backends._steps import lower_attention as attention
from arkinfer.backends._steps import lower_dense as dense
from arkinfer.backends._steps import lower_positions as positions
from arkinfer.backends._steps import lower_weights as weights
from arkinfer.backends._steps.lower import Handler
from arkinfer.graph.builder import DOMAIN

HANDLERS: dict[tuple[str, str], Handler] = {
    # shapes, weights and positions: no step of their own
    ("", "Shape"): positions.shape,
    ("", "Squeeze"): positions.squeeze,
    ("", "Range"): positions.range_,
    ("", "Greater"): positions.greater,
    ("", "Where"): positions.where,
    ("", "Cos"): positions.cos,
    ("", "Sin"): positions.sin,
    ("", "Constant"): weights.constant,
    ("", "ConstantOfShape"): weights.constant_of_shape,
    ("", "Cast"): weights.cast,
    ("", "Unsqueeze"): weights.unsqueeze,
    ("", "Expand"): weights.expand,
    ("", "DequantizeLinear"): weights.dequantize,
    ("", "Transpose"): weights.transpose,
    ("", "Reshape"): weights.reshape,
    # activations
    ("", "Gather"): dense.gather,
    ("", "RMSNormalization"): dense.rms_norm,
    ("", "MatMul"): dense.matmul,
    ("", "Split"): dense.split,
    ("", "Swish"): dense.swish,
    ("", "Mul"): dense.mul,
    ("", "Add"): dense.add,
    # attention
    ("", "RotaryEmbedding"): attention.rotary_embedding,
    ("", "Attention"): attention.attention,
    ("", "Concat"): attention.concat,
    (DOMAIN, "CompressKeys"): attention.compress_keys,
    (DOMAIN, "SelectBlocks"): attention.select_blocks,
    (DOMAIN, "BlockSparseAttention"): attention.block_sparse_attention,
}
