"""The backend-neutral graph: an ONNX model whose weights are named, not held."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import onnx_ir as ir

from arkinfer.checkpoint import FloatType
from arkinfer.config import ModelConfig
from arkinfer.quantize.schemes import GroupScheme


@dataclass(frozen=True)
class WeightSpec:
    """Where the values of a weight come from.

    The weight is the concatenation of the checkpoint tensors ``sources``
    along axis 0. With a float ``storage`` the graph has one input ``name``.
    With a :class:`GroupScheme` it has ``name.codes`` (UINT4 or UINT8
    [outputs, inputs]), ``name.scales`` and, unless symmetric,
    ``name.zero_points`` or ``name.minimums`` ([outputs, inputs/group]).
    """

    name: str
    sources: tuple[str, ...]
    shape: tuple[int, ...]
    storage: FloatType | GroupScheme


def input_names(spec: WeightSpec) -> list[str]:
    """The graph inputs that a weight fills, in order: values, or codes, scales and offsets."""
    if not isinstance(spec.storage, GroupScheme):
        return [spec.name]
    offsets = {"symmetric": [], "zero_point": ["zero_points"], "minimum": ["minimums"]}
    return [f"{spec.name}.{part}" for part in ("codes", "scales", *offsets[spec.storage.offset])]


@dataclass
class Graph:
    """One model as a graph of standard operators and the ``ai.arkinfer`` domain.

    Inputs: ``input_ids`` INT64 [1, tokens]; ``past_key.{l}`` and
    ``past_value.{l}`` FLOAT [1, kv_heads, past, head_dim]; then the weights.
    Outputs: ``logits`` FLOAT [1, tokens, vocab]; ``present_key.{l}`` and
    ``present_value.{l}`` FLOAT [1, kv_heads, past + tokens, head_dim].
    """

    model: ir.Model
    config: ModelConfig
    weights: dict[str, WeightSpec] = field(default_factory=dict)

    def save(self, path: Path) -> None:
        """Write an ordinary ONNX file; the weights are inputs of the graph."""
        ir.save(self.model, path)
